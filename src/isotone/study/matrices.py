"""What edits and their measures need of a clustered matrix: values and masses by rank, no ranks."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from isotone.core.clustered_tensor import ClusteredTensor
from isotone.study.affine import CORRECTIONS, at_error, corrected
from isotone.study.comparison import Comparison, compare_codebooks
from isotone.study.edits import EDITS, Edit
from isotone.study.protocols import Place
from isotone.study.record import Run


@dataclass(frozen=True)
class Matrix:
    """A clustered tensor of a layer, one matrix or a stack.

    codebook: [matrices, k] float64. counts: [matrices, k], of the weights that follow the codebook,
    those that are stored exactly left out; at least 1. squares: [matrices, k], what the square of a
    centroid counts in the sum of squared weights: those weights, each by the square of its factors.
    shape: of the codebook. n_weights: all of them.
    """

    name: str
    place: Place
    shape: tuple[int, ...]
    codebook: NDArray[np.float64]
    counts: NDArray[np.int64]
    squares: NDArray[np.float64]
    n_weights: int

    @classmethod
    def of(cls, name: str, place: Place, tensor: ClusteredTensor) -> Self:
        """Cost: some passes over the ranks; memory: 12 bytes a weight of one matrix."""
        codebook = tensor.codebook.reshape(tensor.n_matrices, -1).astype(np.float64)
        counts, squares = _masses(tensor)
        shape = tensor.codebook.shape
        return cls(name, place, shape, codebook, counts, squares, tensor.n_weights)


@dataclass(frozen=True)
class Edited:
    """A matrix with its new codebook, [matrices, k] float64 as float32 holds it."""

    matrix: Matrix
    codebook: NDArray[np.float64]

    @property
    def stored(self) -> NDArray[np.float32]:
        """The new codebook in the shape of the old."""
        return self.codebook.astype(np.float32).reshape(self.matrix.shape)

    def comparisons(self) -> list[Comparison]:
        """Of each matrix of the stack."""
        rows = zip(self.matrix.codebook, self.codebook, self.matrix.counts, strict=True)
        return [compare_codebooks(*row) for row in rows]

    def products(self) -> tuple[float, float, float, float]:
        """Over the weights: squares before, squares after, product, squared difference."""
        before, after, squares = self.matrix.codebook, self.codebook, self.matrix.squares
        pairs = (before * before, after * after, before * after, (after - before) ** 2)
        whole, whole_after, product, error = (float((squares * pair).sum()) for pair in pairs)
        return whole, whole_after, product, error


def edit_matrices(run: Run, matrices: Mapping[str, Matrix]) -> list[Edited]:
    """What a run makes of the matrices that it is about; protocols.expand has checked the run.

    matrices: all of the model, by name. What is drawn for a matrix depends on the run's seed and
    the matrix's name, and not on which others are edited.
    """
    by_place = {matrix.place: matrix for matrix in matrices.values()}
    chosen = [
        matrix
        for matrix in matrices.values()
        if matrix.place.layer in run.layers and matrix.place.type in run.types
    ]
    edited = []
    for matrix in chosen:
        rng = np.random.default_rng([run.seed, zlib.crc32(matrix.name.encode())])
        pairs = zip(matrix.codebook, matrix.counts, _others(run, matrix, by_place), strict=True)
        rows = [_edit(run, other)(codebook, counts, rng) for codebook, counts, other in pairs]
        values = np.stack(rows).astype(np.float32).astype(np.float64)
        edited.append(Edited(matrix, values))
    return edited


def _edit(run: Run, other: Mapping[str, Any]) -> Edit:
    """The edit of a run, its correction and scaling included."""
    parameters = other or run.parameters
    edit = EDITS[run.edit].with_parameters(**parameters)
    correction = CORRECTIONS[run.correction]
    if run.at_error is None:
        return corrected(edit, correction)
    return at_error(edit, correction, run.at_error)


def _others(
    run: Run, matrix: Matrix, by_place: Mapping[Place, Matrix]
) -> Sequence[Mapping[str, Any]]:
    """For each matrix of a stack the one it is matched to, of the same type in another layer."""
    if not EDITS[run.edit].needs_other:
        return [{}] * len(matrix.codebook)
    other = by_place[Place(int(run.parameters["layer"]), matrix.place.type)]
    pairs = zip(other.codebook, other.counts, strict=True)
    return [{"other": codebook, "other_counts": counts} for codebook, counts in pairs]


def _masses(tensor: ClusteredTensor) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Counts and squares, see Matrix."""
    ranks = tensor.ranks.reshape(tensor.n_matrices, -1)
    follows = np.ones(ranks.size, bool)
    follows[tensor.protected_index] = False
    counts, squares = np.empty((2, tensor.n_matrices, tensor.k))
    for number, free in enumerate(follows.reshape(ranks.shape)):
        row, column = tensor.values.scales(number)
        weights = ((row**2)[:, None] * column**2).reshape(-1) * free
        counts[number] = np.bincount(ranks[number], free, tensor.k)
        squares[number] = np.bincount(ranks[number], weights, tensor.k)
    return np.maximum(counts, 1).astype(np.int64), squares
