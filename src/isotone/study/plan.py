"""Plans: readable TOML that says what to edit, where, and how often (docs/studying.md).

A plan says how a dense model is clustered, what is scored, and holds grids; each grid is a protocol
and the values that it goes through. What a plan means for a given model is found in protocols.py.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

from isotone.errors import InputError
from isotone.study.affine import CORRECTIONS
from isotone.study.edits import EDITS

PROTOCOLS = ("layer", "type", "together", "progressive")
ORDERS = ("first", "last", "random")
SUFFIX = ".toml"


@dataclass(frozen=True)
class EditChoice:
    """An edit with its parameters, one value each."""

    name: str
    parameters: dict[str, float]


@dataclass(frozen=True)
class Grid:
    """Every combination of its values is a run, or a sequence of them.

    protocol: layer (each chosen layer alone), type (each matrix type alone, in all chosen layers),
    together (all chosen layers at once), progressive (the first layer, the first two, and so on,
    each order being a sequence). k: of the clusterings, None for all of the plan's.
    layers: "all", a list of numbers (negative ones count from the end), or how many to spread
    evenly, as {"spread": n}. matrices: globs of types within a layer. at_error: relative errors to
    scale each edit down to; empty for edits as they are. steps: numbers of layers at which a
    progressive sequence is measured, None for every number. until: the sequence ends once
    perplexity is more than so many times that of the unedited model. tasks: for lm-eval.
    """

    name: str
    protocol: str
    edits: tuple[EditChoice, ...]
    k: tuple[int, ...] | None
    layers: Any
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

    clustering: arguments for compress, without k. k: the clusterings of a dense model.
    """

    name: str
    title: str
    k: tuple[int, ...]
    clustering: dict[str, Any]
    context: int
    windows: int
    grids: tuple[Grid, ...]


def plans() -> dict[str, Plan]:
    """The plans that ship, by name."""
    folder = files("isotone.study") / "plans"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(SUFFIX))
    return {
        name.removesuffix(SUFFIX): parse_plan(
            (folder / name).read_text("utf-8"), name.removesuffix(SUFFIX), name
        )
        for name in names
    }


def read_plan(plan: str | Path) -> Plan:
    """A plan that ships, by its name, or one from a TOML file; raises InputError."""
    shipped = plans()
    if str(plan) in shipped:
        return shipped[str(plan)]
    path = Path(plan)
    if path.suffix != SUFFIX:
        raise InputError(f"plan {plan}: expected a {SUFFIX} file, or one of {', '.join(shipped)}")
    try:
        return parse_plan(path.read_text("utf-8"), path.stem, str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise InputError(f"{path}: cannot be read as a plan: {reason}") from error


def parse_plan(text: str, name: str, where: str) -> Plan:
    """A plan from TOML; raises InputError that says what is wrong, and where."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where}: is not TOML: {error}") from error
    top = _Table(content, where)
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


def _grid(table: _Table) -> Grid:
    protocol = table.choices("protocol", PROTOCOLS, None, single=True)[0]
    progressive = protocol == "progressive"
    grid = Grid(
        name=table.take("name", str, protocol),
        protocol=protocol,
        edits=tuple(edit for given in table.take("edits", list) for edit in table.edits(given)),
        k=table.numbers("k", int, ()) or None,
        layers=table.layers(),
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


class _Table:
    """A table of TOML that knows where it is, and what of it has been taken."""

    def __init__(self, content: dict[str, Any], where: str) -> None:
        self._content, self.where = dict(content), where

    def take(self, key: str, kind: type, default: Any = None) -> Any:  # noqa: ANN401 (TOML)
        """A value of a kind; one without a default must be there."""
        value = self._content.pop(key, default)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            given = "is missing" if value is None else f"is {value!r}"
            expected = {str: "a text", int: "a whole number", float: "a number"}
            raise InputError(
                f"{self.where}: {key} {given}; expected {expected.get(kind, f'a {kind.__name__}')}"
            )
        return value

    def numbers(self, key: str, kind: type, default: tuple[Any, ...]) -> tuple[Any, ...]:
        """Numbers in a list, or one alone."""
        value = self._content.pop(key, list(default))
        items = value if isinstance(value, list) else [value]
        return tuple(_Table({key: item}, self.where).take(key, kind) for item in items)

    def texts(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """Texts in a list, or one alone."""
        return self.numbers(key, str, default)

    def choices(
        self,
        key: str,
        known: tuple[str, ...],
        default: tuple[str, ...] | None,
        *,
        single: bool = False,
    ) -> tuple[str, ...]:
        """Texts of a known set."""
        found = self.texts(key, default or ())
        for text in found:
            if text not in known:
                raise InputError(f"{self.where}: {key} is {text!r}; expected {_named(text, known)}")
        if not found or (single and len(found) > 1):
            raise InputError(f"{self.where}: {key} is missing; expected one of {', '.join(known)}")
        return found

    def edits(self, given: Any) -> Iterable[EditChoice]:  # noqa: ANN401 (TOML)
        """An edit by name, or a table of its name and parameters, each a value or a list."""
        table = _Table(given if isinstance(given, dict) else {"edit": given}, self.where)
        (name,) = table.choices("edit", tuple(EDITS), None, single=True)
        for key in table._content:
            if key not in EDITS[name].plan_parameters:
                raise InputError(
                    f"{self.where}: edit {name} has no parameter {key!r}; it has "
                    f"{', '.join(EDITS[name].plan_parameters) or 'none'}"
                )
        kinds = EDITS[name].plan_parameters
        values = [table.numbers(key, kinds[key], ()) for key in list(table._content)]
        keys = [key for key in (given if isinstance(given, dict) else {}) if key != "edit"]
        for combination in product(*values):
            yield EditChoice(name, dict(zip(keys, combination, strict=True)))

    def layers(self) -> Any:  # noqa: ANN401 (one of three kinds)
        """See Grid."""
        given = self._content.pop("layers", "all")
        if isinstance(given, dict) and given.keys() == {"spread"}:
            n = _Table(given, self.where).take("spread", int)
            if n >= 1:
                return {"spread": n}
        if given == "all" or (isinstance(given, list) and all(type(n) is int for n in given)):
            return given
        raise InputError(
            f'{self.where}: layers is {given!r}; expected "all", a list of numbers, or '
            "{spread = N}"
        )

    def seeds(self) -> tuple[int, ...]:
        """A list of seeds, or how many: 0, 1, and so on."""
        given = self._content.get("seeds", 1)
        seeds: tuple[int, ...] = self.numbers("seeds", int, (1,))
        if not isinstance(given, list):
            seeds = tuple(range(seeds[0]))
        if not seeds or min(seeds) < 0:
            raise InputError(f"{self.where}: seeds is {given!r}; expected 1 or more, from 0 up")
        return seeds

    def table(self, key: str) -> _Table:
        """The table of a key, empty where there is none."""
        return _Table(self.take(key, dict, {}), f"{self.where}: [{key}]")

    def tables(self, key: str) -> list[_Table]:
        """The tables of an array."""
        return [
            _Table(item if isinstance(item, dict) else {}, f"{self.where}: [[{key}]] {number}")
            for number, item in enumerate(self.take(key, list, []), 1)
        ]

    def refuse_rest(self) -> None:
        """Raise InputError for a key that nothing took."""
        for key in self._content:
            raise InputError(f"{self.where}: {key!r} is unknown here; take it out")


def _named(text: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(text, known, 3)
    return " or ".join(close) if close else f"one of {', '.join(known)}"
