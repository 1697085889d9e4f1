"""Where the matrices of a checkpoint are in the memory of a model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from isotone.checkpoint.source.source import Source
from isotone.core.float_format import FloatFormat
from isotone.plan.tensors import Clustered

_MEMORY_SHARE = 0.25  # of the machine's, for second moments


@dataclass(frozen=True)
class Place:
    """Where a matrix of the checkpoint is: rows first_row and on of what begins at an address.

    number: of the first matrix that begins there, among all that are planned.
    """

    tensor: str
    matrix: int
    number: int
    address: int
    first_row: int
    n_columns: int


def places_of(
    parameters: Mapping[str, torch.Tensor],
    tensors: set[str] | None,
    source: Source,
    plans: Sequence[Clustered],
) -> list[Place]:
    """The place of each matrix among some parameters, left out where it has none.

    By name, or where the model stacks what the checkpoint has one by one (experts), by content.
    tensors: those that the parameters are made of; None where that may be any.
    """
    stacked = _first_rows(parameters)
    found: list[Place] = []
    numbers: dict[int, int] = {}
    number = 0
    for plan in plans:
        if tensors is None or plan.tensor.name in tensors:
            for matrix, address, first_row in _of_plan(plan, parameters, stacked, source):
                first = numbers.setdefault(address, number + matrix)
                shared = address, first_row, plan.matrix_shape[1]
                found.append(Place(plan.tensor.name, matrix, first, *shared))
        number += plan.n_matrices
    return found


def rounds(places: Sequence[Place]) -> list[dict[int, int]]:
    """The numbers of matrices by address, as many at once as memory has room for; one or more."""
    room = _MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found: list[dict[int, int]] = [{}]
    taken = 0
    for place in {place.address: place for place in places}.values():
        n_bytes = 2 * 4 * place.n_columns**2
        if found[-1] and taken + n_bytes > room:
            found.append({})
            taken = 0
        found[-1][place.address] = place.number
        taken += n_bytes
    return found


def _of_plan(
    plan: Clustered,
    parameters: Mapping[str, torch.Tensor],
    stacked: Mapping[bytes, tuple[int, int] | None],
    source: Source,
) -> Iterator[tuple[int, int, int]]:
    """(matrix, address, first row) of those of a tensor that are found."""
    shape = plan.tensor.shape
    parameter = parameters.get(plan.tensor.name)
    if parameter is not None and tuple(parameter.shape) == shape:
        matrices = parameter if plan.n_matrices > 1 else parameter.unsqueeze(0)
        for index, matrix in enumerate(matrices):
            yield index, matrix.data_ptr(), 0
    elif len(shape) == 2 and stacked:
        bits = source.read(plan.tensor, 0, shape[1])
        float_format = FloatFormat(plan.tensor.dtype)
        row = float_format.upcast(bits.view(float_format.bits_dtype)).tobytes()
        place = stacked.get(row)
        if place is not None:
            yield 0, *place


def _first_rows(parameters: Mapping[str, torch.Tensor]) -> dict[bytes, tuple[int, int] | None]:
    """Stacked matrices by their first row, and by that of their lower half, which may be another's.

    None for a row that occurs twice.
    """
    found: dict[bytes, tuple[int, int] | None] = {}
    for parameter in parameters.values():
        for matrix in parameter.detach() if parameter.ndim == 3 else ():
            for first_row in {0, len(matrix) // 2}:
                row = matrix[first_row].float().cpu().numpy().tobytes()
                found[row] = None if row in found else (matrix.data_ptr(), first_row)
    return found
