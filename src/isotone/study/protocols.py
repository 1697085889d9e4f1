"""What a plan comes to on a given model: sequences of runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product

import numpy as np

from isotone.errors import InputError
from isotone.study.edits import EDITS
from isotone.study.plan import EditChoice, Grid, Plan
from isotone.study.record import Run

_IN_LAYER = re.compile(r"^(?P<stack>.*?)\.(?P<layer>\d+)\.(?P<type>.+?)(\.weight)?$")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")

RunSequence = tuple[Run, ...]
"""Runs that are measured in this order; the rest is left out where one passes `until`."""


@dataclass(frozen=True)
class Place:
    """Where a clustered matrix is: the number of its layer, and what it is called within.

    Experts of one kind, where a checkpoint has them apart, share a type: `mlp.experts.*.up_proj`.
    """

    layer: int
    type: str

    @classmethod
    def of(cls, name: str) -> Place | None:
        """Of a tensor by its name; None outside of the layers, as for embeddings."""
        found = _IN_LAYER.match(name)
        if found is None:
            return None
        return cls(int(found["layer"]), _NUMBER.sub("*", found["type"]))


def expand(plan: Plan, k: Sequence[int], places: Sequence[Place]) -> list[RunSequence]:
    """Every run of a plan on a model, in sequences, those of one k beside each other.

    k: of the clusterings. places: of the model's clustered matrices. Raises InputError for layers,
    matrices and k that are not there.
    """
    sequences = [one for grid in plan.grids for one in _expand(grid, k, places)]
    return sorted(sequences, key=lambda sequence: k.index(sequence[0].k))


def _expand(grid: Grid, k: Sequence[int], places: Sequence[Place]) -> Iterator[RunSequence]:
    layers = _layers(grid, sorted({place.layer for place in places}))
    types = _types(grid, list(dict.fromkeys(place.type for place in places)))
    missing = [number for number in grid.k or () if number not in k]
    if missing:
        raise InputError(
            f"grid {grid.name!r}: there is no clustering with k = {missing[0]}, only "
            f"{', '.join(map(str, k))}"
        )
    for edit in grid.edits:
        _check_other(grid, edit, types, places)
    for number, edit, correction, error in product(
        grid.k or k, grid.edits, grid.corrections, grid.at_error or (None,)
    ):
        for seed, order, targets in _targets(grid, edit.name, layers, types):
            yield tuple(
                Run(
                    grid=grid.name,
                    protocol=grid.protocol,
                    k=number,
                    layers=chosen,
                    types=its_types,
                    edit=edit.name,
                    parameters=edit.parameters,
                    at_error=error,
                    correction=correction,
                    order=order,
                    seed=seed,
                    tasks=grid.tasks,
                    until=grid.until,
                )
                for chosen, its_types in targets
            )


def _check_other(
    grid: Grid, edit: EditChoice, types: Sequence[str], places: Sequence[Place]
) -> None:
    """Raise InputError where the matrix that an edit takes besides is not there."""
    if not EDITS[edit.name].needs_other:
        return
    if "layer" not in edit.parameters:
        raise InputError(f"grid {grid.name!r}: edit {edit.name} needs a layer, the one to match")
    for name in types:
        if Place(int(edit.parameters["layer"]), name) not in places:
            raise InputError(
                f"grid {grid.name!r}: there is no {name} in layer {edit.parameters['layer']}, "
                f"which edit {edit.name} should match"
            )


Target = tuple[tuple[int, ...], tuple[str, ...]]
"""Layers and types."""


def _targets(
    grid: Grid, edit: str, layers: tuple[int, ...], types: tuple[str, ...]
) -> Iterator[tuple[int, str | None, list[Target]]]:
    """Seeds, orders, and what is edited in each run of a sequence.

    Where nothing is drawn one seed stands for all.
    """
    drawn = EDITS[edit].drawn
    seeds = grid.seeds if drawn else grid.seeds[:1]
    if grid.protocol == "progressive":
        for order in grid.orders:
            for seed in grid.seeds if order == "random" else seeds:
                ordered = _ordered(layers, order, seed)
                steps = [n for n in grid.steps or range(1, len(layers) + 1) if n <= len(layers)]
                yield seed, order, [(ordered[:n], types) for n in steps]
        return
    alone: dict[str, list[Target]] = {
        "layer": [((layer,), types) for layer in layers],
        "type": [(layers, (one,)) for one in types],
        "together": [(layers, types)],
    }
    for seed in seeds:
        for target in alone[grid.protocol]:
            yield seed, None, [target]


def _ordered(layers: tuple[int, ...], order: str, seed: int) -> tuple[int, ...]:
    if order == "random":
        return tuple(int(n) for n in np.random.default_rng(seed).permutation(layers))
    return layers if order == "first" else layers[::-1]


def _layers(grid: Grid, present: Sequence[int]) -> tuple[int, ...]:
    if not present:
        raise InputError("the model has no clustered matrix in numbered layers; nothing to study")
    if grid.layers == "all":
        return tuple(present)
    if isinstance(grid.layers, dict):
        spread = np.linspace(0, len(present) - 1, min(grid.layers["spread"], len(present)))
        return tuple(present[round(at)] for at in spread)
    chosen = [n + present[-1] + 1 if n < 0 else n for n in grid.layers]
    for given, layer in zip(grid.layers, chosen, strict=True):
        if layer not in present:
            raise InputError(
                f"grid {grid.name!r}: the model has no layer {given} with clustered matrices; it "
                f"has {present[0]} to {present[-1]}"
            )
    return tuple(dict.fromkeys(chosen))


def _types(grid: Grid, present: Sequence[str]) -> tuple[str, ...]:
    for glob in grid.matrices:
        if not any(fnmatchcase(name, glob) for name in present):
            raise InputError(
                f"grid {grid.name!r}: {glob!r} matches none of the matrices of a layer: "
                f"{', '.join(present)}"
            )
    return tuple(name for name in present if any(fnmatchcase(name, glob) for glob in grid.matrices))
