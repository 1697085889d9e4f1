"""Plans: readable TOML that says what to edit, where, and how often (docs/studying.md).

A plan says how a dense model is clustered and what is scored, and it holds grids. A grid is a
protocol and the values that it goes through. What a plan means on a given model is found in
`isotone.study.protocols`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

from isotone.errors import InputError
from isotone.models.text import decoded
from isotone.study.edits import EDITS
from isotone.study.edits.corrections import CORRECTIONS
from isotone.study.plan_table import PlanTable

PROTOCOLS = ("layer", "type", "together", "progressive")
ORDERS = ("first", "last", "random")
SUFFIX = ".toml"

LayerChoice: TypeAlias = str | Sequence[int] | Mapping[str, int]
"""Layers as plans name them: "all", numbers, or {"spread": n} for n of them."""


@dataclass(frozen=True)
class EditChoice:
    """An edit with one value for each of its parameters.

    Attributes
    ----------
    name : str
        The name of the edit.
    parameters : dict of str to float
        The parameters that the plan sets.
    """

    name: str
    parameters: dict[str, float]


@dataclass(frozen=True)
class Grid:
    """Values whose every combination is a run, or a sequence of runs.

    Attributes
    ----------
    name : str
        The name of the grid.
    protocol : str
        "layer" edits each chosen layer alone, "type" each type of matrix alone in all chosen
        layers, "together" all chosen layers at once, and "progressive" the first layer of an order,
        the first two, and so on, each order being a sequence.
    edits : tuple of EditChoice
        The edits.
    k : tuple of int or None
        The K of the clusterings; None for all of the plan's.
    layers : "all", list of int, or dict
        The chosen layers: numbers, of which negative ones count from the last layer, or `{"spread":
        n}` for n layers that are evenly spread.
    matrices : tuple of str
        Globs on the types of matrices within a layer.
    at_error : tuple of float
        The relative errors that each edit is scaled down to; empty for edits as they are.
    corrections : tuple of str
        The names of the corrections.
    orders : tuple of str
        The orders of a progressive replacement.
    steps : tuple of int or None
        The numbers of layers at which a progressive sequence is measured; None for every number.
    until : float or None
        The multiple of the unedited perplexity at which a progressive sequence ends.
    seeds : tuple of int
        The seeds; where an edit draws nothing, the first stands for all.
    tasks : tuple of str
        The tasks of lm-eval, by name or file.
    """

    name: str
    protocol: str
    edits: tuple[EditChoice, ...]
    k: tuple[int, ...] | None
    layers: LayerChoice
    matrices: tuple[str, ...]
    at_error: tuple[float, ...]
    corrections: tuple[str, ...]
    orders: tuple[str, ...]
    steps: tuple[int, ...] | None
    until: float | None
    seeds: tuple[int, ...]
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A whole plan.

    Attributes
    ----------
    name : str
        The name of the plan.
    title : str
        One line that says what the plan asks.
    k : tuple of int
        The K of the clusterings of a dense model.
    clustering : dict
        Further arguments for `isotone.compress`.
    context : int
        The tokens of a window.
    windows : int
        The number of windows.
    grids : tuple of Grid
        The grids, one or more, of different names.
    """

    name: str
    title: str
    k: tuple[int, ...]
    clustering: dict[str, Any]
    context: int
    windows: int
    grids: tuple[Grid, ...]


def plans() -> dict[str, Plan]:
    """Return the plans that ship with isotone, by name."""
    folder = files("isotone.study") / "plans"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(SUFFIX))
    return {
        name.removesuffix(SUFFIX): parse_plan(
            (folder / name).read_text("utf-8"), name.removesuffix(SUFFIX), name
        )
        for name in names
    }


def read_plan(plan: str | Path) -> Plan:
    """Read a plan.

    Parameters
    ----------
    plan : str or Path
        The name of a plan that ships, or the path of a .toml file.

    Returns
    -------
    Plan
        The plan.

    Raises
    ------
    InputError
        If there is no such plan, or it is not valid.
    """
    shipped = plans()
    if str(plan) in shipped:
        return shipped[str(plan)]
    path = Path(plan)
    if path.suffix != SUFFIX:
        raise InputError(f"plan {plan}: expected a {SUFFIX} file, or one of {', '.join(shipped)}")
    try:
        return parse_plan(decoded(path.read_bytes()), path.stem, str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise InputError(f"{path}: cannot be read as a plan: {reason}") from error


def parse_plan(text: str, name: str, where: str) -> Plan:
    """Parse the TOML of a plan.

    Parameters
    ----------
    text : str
        The TOML.
    name : str
        The name of the plan.
    where : str
        The file that it came from, as the beginning of messages.

    Returns
    -------
    Plan
        The plan.

    Raises
    ------
    InputError
        If a value is missing, unknown or wrong; the message names the table and the key.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where}: is not TOML: {error}") from error
    top = PlanTable(content, where)
    clustering, evaluation = (top.table(key) for key in ("clustering", "evaluation"))
    plan = Plan(
        name=name,
        title=top.take("title", str, name),
        k=clustering.numbers("k", int, (16,)),
        clustering={
            "protect": clustering.take("protect", str, "auto"),
            "scale": clustering.take("scale", str, "none"),
            "include": list(clustering.texts("include", ())),
            "exclude": list(clustering.texts("exclude", ())),
        },
        context=evaluation.take("context", int, 512),
        windows=evaluation.take("windows", int, 4),
        grids=tuple(_grid(grid) for grid in top.tables("grid")),
    )
    for table in (clustering, evaluation, top):
        table.refuse_rest()
    if not plan.grids:
        raise InputError(f"{where}: has no [[grid]], so there is nothing to run")
    names = [grid.name for grid in plan.grids]
    for grid in names:
        if names.count(grid) > 1:
            raise InputError(f"{where}: two grids are called {grid!r}; names must differ")
    return plan


def _grid(table: PlanTable) -> Grid:
    protocol = table.choices("protocol", PROTOCOLS, None, single=True)[0]
    progressive = protocol == "progressive"
    grid = Grid(
        name=table.take("name", str, protocol),
        protocol=protocol,
        edits=tuple(edit for given in table.take("edits", list) for edit in _edits(table, given)),
        k=table.numbers("k", int, ()) or None,
        layers=_layers(table),
        matrices=table.texts("matrices", ("*",)),
        at_error=table.numbers("at_error", float, ()),
        corrections=table.choices("corrections", tuple(CORRECTIONS), ("moments",)),
        orders=table.choices("orders", ORDERS, ORDERS) if progressive else (),
        steps=(table.numbers("steps", int, ()) or None) if progressive else None,
        until=table.take("until", float, 0.0) or None if progressive else None,
        seeds=table.seeds(),
        tasks=table.texts("tasks", ()),
    )
    table.refuse_rest()
    if not grid.edits:
        raise InputError(f"{table.where}: edits is empty; expected names of edits")
    for error in grid.at_error:
        if not error > 0:
            raise InputError(f"{table.where}: at_error holds {error}; expected more than 0")
    if grid.until is not None and not grid.until > 1:
        raise InputError(f"{table.where}: until is {grid.until}; expected more than 1")
    if grid.steps and min(grid.steps) < 1:
        raise InputError(f"{table.where}: steps hold {min(grid.steps)}; expected 1 or more")
    return grid


def _edits(table: PlanTable, given: Any) -> Iterator[EditChoice]:  # noqa: ANN401 (TOML)
    """Yield the choices of an edit: a name, or a table of a name and parameters with values."""
    own = PlanTable(given if isinstance(given, dict) else {"edit": given}, table.where)
    (name,) = own.choices("edit", tuple(EDITS), None, single=True)
    kinds = EDITS[name].plan_parameters
    for key in own.keys:
        if key not in kinds:
            raise InputError(
                f"{table.where}: edit {name} has no parameter {key!r}; it has "
                f"{', '.join(kinds) or 'none'}"
            )
    keys = own.keys
    values = [own.numbers(key, kinds[key], ()) for key in keys]
    for combination in product(*values):
        yield EditChoice(name, dict(zip(keys, combination, strict=True)))


def _layers(table: PlanTable) -> LayerChoice:
    """Return the layers of a grid, see Grid."""
    given = table.take_any("layers", "all")
    if isinstance(given, dict) and given.keys() == {"spread"}:
        n = PlanTable(given, table.where).take("spread", int)
        if n >= 1:
            return {"spread": n}
    elif given == "all":
        return "all"
    elif isinstance(given, list) and all(type(n) is int for n in given):
        return given
    raise InputError(
        f'{table.where}: layers is {given!r}; expected "all", a list of numbers, or {{spread = N}}'
    )
