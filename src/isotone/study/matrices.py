"""The clustered matrices of a model as edits see them, and the one place where edits are applied.

An edit needs the values of a matrix and how many weights each rank has, but not the ranks: those
are counted once, and every edit afterwards costs a few operations on K numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from isotone.core.clustered_tensor import ClusteredTensor
from isotone.study.comparison import CodebookComparison, compare_codebooks
from isotone.study.edits import EDITS
from isotone.study.edits.corrections import CORRECTIONS, at_error, corrected
from isotone.study.edits.kind import Edit
from isotone.study.protocols import MatrixPlace
from isotone.study.record import StudyRun


@dataclass(frozen=True)
class StudiedMatrix:
    """A clustered tensor of a layer, one matrix or a stack, without its ranks.

    Protected weights (outliers kept exactly) do not follow the codebook, so they are not counted.

    Attributes
    ----------
    name : str
        The name of the tensor in the checkpoint.
    place : MatrixPlace
        The layer and the type of the tensor.
    shape : tuple of int
        The shape of the codebook: `[k]` or `[matrices, k]`.
    codebook : float64 array, `[matrices, k]`
        The centroids of each matrix, ascending.
    counts : int64 array, `[matrices, k]`
        The number of weights at each centroid, without protected weights; at least 1.
    squares : float64 array, `[matrices, k]`
        What the square of each centroid counts in the sum of squared weights: the sum over its
        weights of their squared scales.
    n_weights : int
        The number of weights of the tensor, protected weights included.
    """

    name: str
    place: MatrixPlace
    shape: tuple[int, ...]
    codebook: NDArray[np.float64]
    counts: NDArray[np.int64]
    squares: NDArray[np.float64]
    n_weights: int

    @classmethod
    def of(cls, name: str, place: MatrixPlace, tensor: ClusteredTensor) -> Self:
        """Count what edits need of a clustered tensor.

        Parameters
        ----------
        name : str
            The name of the tensor in the checkpoint.
        place : MatrixPlace
            The layer and the type of the tensor.
        tensor : ClusteredTensor
            The tensor.

        Returns
        -------
        StudiedMatrix
            The values and the counts.

        Notes
        -----
        The cost is a few passes over the ranks, and 12 bytes for each weight of one matrix.
        """
        codebook = tensor.codebook.reshape(tensor.n_matrices, -1).astype(np.float64)
        counts, squares = _counts_and_squares(tensor)
        shape = tensor.codebook.shape
        return cls(name, place, shape, codebook, counts, squares, tensor.n_weights)


@dataclass(frozen=True)
class EditedMatrix:
    """A matrix with its edited codebook.

    Attributes
    ----------
    matrix : StudiedMatrix
        The matrix before the edit.
    codebook : float64 array, `[matrices, k]`
        The edited values by rank, rounded to float32.
    """

    matrix: StudiedMatrix
    codebook: NDArray[np.float64]

    @property
    def stored(self) -> NDArray[np.float32]:
        """The edited codebook as float32, in the shape of the tensor's codebook."""
        return self.codebook.astype(np.float32).reshape(self.matrix.shape)

    def comparisons(self) -> list[CodebookComparison]:
        """Return the comparison of each matrix of the stack with what it was."""
        rows = zip(self.matrix.codebook, self.codebook, self.matrix.counts, strict=True)
        return [compare_codebooks(*row) for row in rows]

    def products(self) -> tuple[float, float, float, float]:
        """Return four sums over the weights, scales included and protected weights left out.

        These are the squares before the edit, the squares after it, the products of before and
        after, and the squared differences.
        """
        before, after, squares = self.matrix.codebook, self.codebook, self.matrix.squares
        pairs = (before * before, after * after, before * after, (after - before) ** 2)
        whole, whole_after, product, error = (float((squares * pair).sum()) for pair in pairs)
        return whole, whole_after, product, error


def edit_matrices(run: StudyRun, matrices: Mapping[str, StudiedMatrix]) -> list[EditedMatrix]:
    """Apply the edit of a run, with its correction, to the matrices that the run chooses.

    What is drawn for a matrix depends on the run's seed and on the matrix's name, and not on which
    other matrices are edited.

    Parameters
    ----------
    run : StudyRun
        The run; its layers, types and parameters have been checked.
    matrices : dict of str to StudiedMatrix
        All matrices of the model by name, or at least those that the run edits or matches.

    Returns
    -------
    list of EditedMatrix
        The edited matrices, in the order of `matrices`.
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
        rows = zip(matrix.codebook, matrix.counts, _others(run, matrix, by_place), strict=True)
        values = [_edit(run, other)(codebook, counts, rng) for codebook, counts, other in rows]
        rounded = np.stack(values).astype(np.float32).astype(np.float64)
        edited.append(EditedMatrix(matrix, rounded))
    return edited


def _edit(run: StudyRun, other: Mapping[str, Any]) -> Edit:
    """Return the edit of a run, its correction and its scaling to an error included."""
    parameters = other or run.parameters
    edit = EDITS[run.edit].with_parameters(**parameters)
    correction = CORRECTIONS[run.correction]
    if run.at_error is None:
        return corrected(edit, correction)
    return at_error(edit, correction, run.at_error)


def _others(
    run: StudyRun, matrix: StudiedMatrix, by_place: Mapping[MatrixPlace, StudiedMatrix]
) -> Sequence[Mapping[str, Any]]:
    """Return, for each matrix of a stack, the matrix of the same type that it is matched to."""
    if not EDITS[run.edit].needs_other:
        return [{}] * len(matrix.codebook)
    other = by_place[MatrixPlace(int(run.parameters["layer"]), matrix.place.type)]
    pairs = zip(other.codebook, other.counts, strict=True)
    return [{"other": codebook, "other_counts": counts} for codebook, counts in pairs]


def _counts_and_squares(
    tensor: ClusteredTensor,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the `counts` and the `squares` of a StudiedMatrix."""
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
