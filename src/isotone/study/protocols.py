"""Expands a plan into sequences of runs on a given model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product

import numpy as np

from isotone.errors import InputError
from isotone.plan.layer_name import LayerName
from isotone.study.edits import EDITS
from isotone.study.plan import EditChoice, Grid, LayerChoice, Plan
from isotone.study.record import StudyRun

RunSequence = tuple[StudyRun, ...]
"""Runs that are measured in this order; the rest is left out where one passes `until`."""


@dataclass(frozen=True)
class MatrixPlace:
    """Where a clustered matrix is: in which layer, and what it is called there.

    Experts of one kind, where a checkpoint has them apart, share a type: `mlp.experts.*.up_proj`.

    Attributes
    ----------
    layer : int
        The number of the layer.
    type : str
        The name of the matrix within its layer.
    """

    layer: int
    type: str

    @classmethod
    def of(cls, name: str) -> MatrixPlace | None:
        """Return the place of a tensor.

        Parameters
        ----------
        name : str
            The name of the tensor in the checkpoint.

        Returns
        -------
        MatrixPlace or None
            None for a tensor outside of the layers, such as an embedding.

        Examples
        --------
        >>> MatrixPlace.of("model.layers.8.mlp.up_proj.weight")
        MatrixPlace(layer=8, type='mlp.up_proj')
        """
        found = LayerName.of(name)
        return None if found is None else cls(found.layer, found.type)


def expand(plan: Plan, k: Sequence[int], places: Sequence[MatrixPlace]) -> list[RunSequence]:
    """Return every run of a plan on a model.

    Parameters
    ----------
    plan : Plan
        The plan.
    k : sequence of int
        The K of each clustering.
    places : sequence of MatrixPlace
        Where the clustered matrices of the model are.

    Returns
    -------
    list of tuple of StudyRun
        Sequences of runs, those of one K next to each other. A sequence is measured in its order,
        and its rest is left out where a run passes `until`.

    Raises
    ------
    InputError
        If the model lacks a layer, a type of matrix or a K that the plan names.
    """
    sequences = [one for grid in plan.grids for one in _expand(grid, k, places)]
    return sorted(sequences, key=lambda sequence: k.index(sequence[0].k))


def _expand(grid: Grid, k: Sequence[int], places: Sequence[MatrixPlace]) -> Iterator[RunSequence]:
    where = f"grid {grid.name!r}"
    layers = choose_layers(grid.layers, places, where)
    types = choose_types(grid.matrices, places, where)
    missing = [number for number in grid.k or () if number not in k]
    if missing:
        raise InputError(
            f"{where}: there is no clustering with k = {missing[0]}, only {', '.join(map(str, k))}"
        )
    for edit in grid.edits:
        check_other(edit, types, places, where)
    for number, edit, correction, error in product(
        grid.k or k, grid.edits, grid.corrections, grid.at_error or (None,)
    ):
        for seed, order, targets in _targets(grid, edit.name, layers, types):
            yield tuple(
                StudyRun(
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


def check_other(
    edit: EditChoice, types: Sequence[str], places: Sequence[MatrixPlace], where: str
) -> None:
    """Raise an error if the matrices that an edit takes besides do not exist.

    Parameters
    ----------
    edit : EditChoice
        The edit with its parameters.
    types : sequence of str
        The types of the edited matrices.
    places : sequence of MatrixPlace
        Where the clustered matrices of the model are.
    where : str
        What chose the edit, as the beginning of the message.

    Raises
    ------
    InputError
        If the edit takes another matrix, and its layer is not given or lacks one of the types.
    """
    if not EDITS[edit.name].needs_other:
        return
    if "layer" not in edit.parameters:
        raise InputError(f"{where}: edit {edit.name} needs a layer, the one to match")
    for name in types:
        if MatrixPlace(int(edit.parameters["layer"]), name) not in places:
            raise InputError(
                f"{where}: there is no {name} in layer {edit.parameters['layer']}, "
                f"which edit {edit.name} should match"
            )


Target = tuple[tuple[int, ...], tuple[str, ...]]
"""The layers and the types of matrices that a run edits."""


def _targets(
    grid: Grid, edit: str, layers: tuple[int, ...], types: tuple[str, ...]
) -> Iterator[tuple[int, str | None, list[Target]]]:
    """Yield seeds, orders, and what each run of a sequence edits.

    Where nothing is drawn, one seed stands for all.
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


def choose_layers(
    layers: LayerChoice, places: Sequence[MatrixPlace], where: str
) -> tuple[int, ...]:
    """Return the numbers of the chosen layers.

    Parameters
    ----------
    layers : "all", list of int, or dict
        The choice, see `Grid`.
    places : sequence of MatrixPlace
        Where the clustered matrices of the model are.
    where : str
        What chose the layers, as the beginning of the message.

    Returns
    -------
    tuple of int
        The layers, in the order in which they were named, each once.

    Raises
    ------
    InputError
        If the model has no clustered matrix in a chosen layer, or none in any.
    """
    present = sorted({place.layer for place in places})
    if not present:
        raise InputError("the model has no clustered matrix in numbered layers; nothing to study")
    if layers == "all":
        return tuple(present)
    if isinstance(layers, Mapping):
        spread = np.linspace(0, len(present) - 1, min(layers["spread"], len(present)))
        return tuple(present[round(at)] for at in spread)
    chosen = []
    for given in layers:
        layer = int(given)
        layer += present[-1] + 1 if layer < 0 else 0
        if layer not in present:
            raise InputError(
                f"{where}: the model has no layer {given} with clustered matrices; it "
                f"has {present[0]} to {present[-1]}"
            )
        chosen.append(layer)
    return tuple(dict.fromkeys(chosen))


def choose_types(
    globs: Sequence[str], places: Sequence[MatrixPlace], where: str
) -> tuple[str, ...]:
    """Return the types of matrices that some globs match.

    Parameters
    ----------
    globs : sequence of str
        Globs on the types, such as "mlp.*".
    places : sequence of MatrixPlace
        Where the clustered matrices of the model are.
    where : str
        What chose the types, as the beginning of the message.

    Returns
    -------
    tuple of str
        The types in the order of `places`, each once.

    Raises
    ------
    InputError
        If a glob matches no type.
    """
    present = list(dict.fromkeys(place.type for place in places))
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in present):
            raise InputError(
                f"{where}: {glob!r} matches none of the matrices of a layer: {', '.join(present)}"
            )
    return tuple(name for name in present if any(fnmatchcase(name, glob) for glob in globs))
