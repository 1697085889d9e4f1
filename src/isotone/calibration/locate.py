"""Where the matrices of a checkpoint lie in the memory of a loaded model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from isotone.checkpoint.source.source import Source
from isotone.core.float_format import FloatFormat
from isotone.plan.tensors import Clustered

_MEMORY_SHARE = 0.25  # of the machine's memory, for second moments


@dataclass(frozen=True)
class MatrixLocation:
    """Where one matrix of the checkpoint lies: in a matrix of the model, from one of its rows on.

    Attributes
    ----------
    tensor : str
        The name of the tensor in the checkpoint.
    matrix : int
        The position of the matrix in a stack; 0 for a tensor that is not a stack.
    number : int
        The number, among all matrices that are planned, of the first one that begins at `address`.
    address : int
        The memory address of the first weight of the model's matrix.
    first_row : int
        The row of the model's matrix at which this one begins.
    n_columns : int
        The number of its columns.
    """

    tensor: str
    matrix: int
    number: int
    address: int
    first_row: int
    n_columns: int


def locate_matrices(
    parameters: Mapping[str, torch.Tensor],
    tensors: set[str] | None,
    source: Source,
    plans: Sequence[Clustered],
) -> list[MatrixLocation]:
    """Find the matrices of a checkpoint among some parameters of a model.

    A matrix is found by the name of its tensor. Where the model stacks what the checkpoint holds
    one by one (experts), it is found by the content of its first row.

    Parameters
    ----------
    parameters : mapping of str to Tensor
        The parameters, by the names that the checkpoint has for them where it has any.
    tensors : set of str or None
        The tensors of the checkpoint that the parameters are made of; None if that is not known.
    source : Source
        The checkpoint.
    plans : sequence of Clustered
        The tensors to look for.

    Returns
    -------
    list of MatrixLocation
        The matrices that were found, in the order of the plans.
    """
    stacked = _first_rows(parameters)
    found: list[MatrixLocation] = []
    numbers: dict[int, int] = {}
    number = 0
    for plan in plans:
        if tensors is None or plan.tensor.name in tensors:
            for matrix, address, first_row in _of_plan(plan, parameters, stacked, source):
                first = numbers.setdefault(address, number + matrix)
                shared = address, first_row, plan.matrix_shape[1]
                found.append(MatrixLocation(plan.tensor.name, matrix, first, *shared))
        number += plan.n_matrices
    return found


def memory_rounds(locations: Sequence[MatrixLocation]) -> list[dict[int, int]]:
    """Divide matrices into rounds whose second moments fit in memory together.

    Parameters
    ----------
    locations : sequence of MatrixLocation
        The matrices.

    Returns
    -------
    list of dict of int to int
        For each round, the number of each matrix by its address. There is at least one round.
    """
    room = _MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found: list[dict[int, int]] = [{}]
    taken = 0
    for location in {location.address: location for location in locations}.values():
        n_bytes = 2 * 4 * location.n_columns**2
        if found[-1] and taken + n_bytes > room:
            found.append({})
            taken = 0
        found[-1][location.address] = location.number
        taken += n_bytes
    return found


def _of_plan(
    plan: Clustered,
    parameters: Mapping[str, torch.Tensor],
    stacked: Mapping[bytes, tuple[int, int] | None],
    source: Source,
) -> Iterator[tuple[int, int, int]]:
    """Yield the position in its stack, the address and the first row of each matrix found."""
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
        location = stacked.get(row)
        if location is not None:
            yield 0, *location


def _first_rows(parameters: Mapping[str, torch.Tensor]) -> dict[bytes, tuple[int, int] | None]:
    """Return the address and first row of each matrix in a stack, by the content of that row.

    The first row of the lower half is looked up too, since models join two matrices of the
    checkpoint (gate and up projections). A row that occurs twice leads to None.
    """
    found: dict[bytes, tuple[int, int] | None] = {}
    for parameter in parameters.values():
        for matrix in parameter.detach() if parameter.ndim == 3 else ():
            for first_row in {0, len(matrix) // 2}:
                row = matrix[first_row].float().cpu().numpy().tobytes()
                found[row] = None if row in found else (matrix.data_ptr(), first_row)
    return found
