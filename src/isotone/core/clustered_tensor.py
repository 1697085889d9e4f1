"""The central object: a tensor as ranks in a codebook."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from isotone import _native
from isotone.core.float_format import Bits, FloatFormat
from isotone.core.scale_codes import Scale, factors_of
from isotone.errors import InputError


def _no_positions() -> NDArray[np.int64]:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class ClusteredTensor:
    """Assignments (the tensor's order) and codebook (its values), kept apart.

    A weight is `codebook[rank] * row_scale[row] * column_scale[column]`, each product rounded to
    float32 in that order, then rounded to `float_format`; protected weights replace the result. A
    stack of matrices (fused experts) has a codebook for each: shape [matrices, rows, ...]. Rows
    and columns are those of each matrix: its first axis, and all others flattened.

    shape: the tensor's.
    float_format: of origin, and of the weights that come back.
    codebook: [k] float32, or [matrices, k]; strictly ascending along the last axis.
    assignments: `shape`, uint8.
    row_scale: None, or [rows] or [matrices, rows]: uint8 codes (see scale_codes), or positive
        float16 or float32.
    column_scale: None, or [columns] or [matrices, columns], likewise.
    protected_index: [n] int64, ascending positions in the flattened tensor.
    protected_value: [n] patterns of `float_format`.
    """

    shape: tuple[int, ...]
    float_format: FloatFormat
    codebook: NDArray[np.float32]
    assignments: NDArray[np.uint8]
    row_scale: Scale | None = None
    column_scale: Scale | None = None
    protected_index: NDArray[np.int64] = field(default_factory=_no_positions)
    protected_value: Bits = field(default_factory=lambda: np.empty(0, np.uint32))

    @property
    def k(self) -> int:
        """The number of centroids of each codebook."""
        return int(self.codebook.shape[-1])

    @property
    def n_matrices(self) -> int:
        """1, or the height of the stack."""
        return 1 if self.codebook.ndim == 1 else self.codebook.shape[0]

    @property
    def n_weights(self) -> int:
        """The number of weights."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def counts(self) -> NDArray[np.int64]:
        """[k] or [matrices, k]: how many weights each centroid stands for. Cost: one pass."""
        ranks = self.assignments.reshape(self.n_matrices, -1)
        counts = [np.bincount(row, minlength=self.k) for row in ranks]
        return np.array(counts, np.int64).reshape(self.codebook.shape)

    def with_codebook(self, codebook: NDArray[np.float32]) -> ClusteredTensor:
        """A sibling that shares the assignments, and holds other values.

        codebook: the shape of the present one, float32, finite; its order is free, so that
        studies can break it. Raises InputError otherwise.
        """
        check_values(codebook, self.codebook.shape)
        return dataclasses.replace(self, codebook=codebook)

    def dense_bits(self) -> Bits:
        """The weights that come back, as patterns of `float_format`, shaped [weights]."""
        out = np.empty(self.n_weights, self.float_format.bits_dtype)
        size = self.n_weights // self.n_matrices
        for matrix in range(self.n_matrices):
            part = slice(matrix * size, (matrix + 1) * size)
            restore(self, matrix, 0, self.assignments.reshape(-1)[part], out[part])
        out[self.protected_index] = self.protected_value
        return out

    def dense(self) -> NDArray[np.float32]:
        """The weights that come back, in `shape`, widened to float32 (exact)."""
        return self.float_format.widen(self.dense_bits()).reshape(self.shape)


def check_values(codebook: NDArray[np.float32], shape: tuple[int, ...]) -> None:
    """Raise InputError where a codebook is not float32, finite and of that shape."""
    if codebook.shape != shape or codebook.dtype != np.float32:
        raise InputError(
            f"a codebook of shape {codebook.shape} and dtype {codebook.dtype} was given; "
            f"expected {shape} float32"
        )
    if not np.isfinite(codebook).all():
        raise InputError("the codebook holds NaN or infinity; expected finite values")


def ascends(codebook: NDArray[np.float32]) -> bool:
    """Whether each codebook of [k] or [matrices, k] is strictly ascending, as stored ones are."""
    return bool((codebook[..., 1:] > codebook[..., :-1]).all())


def restore(
    tensor: ClusteredTensor, matrix: int, start: int, ranks: NDArray[np.uint8], out: Bits
) -> None:
    """Write the weights of a run of ranks, protected ones not yet put in.

    matrix: which of the stack. start: the run's first position in that matrix.
    ranks: [n] uint8, each below k (trusted). out: [n] patterns of the tensor's format.
    """
    codebook = tensor.codebook.reshape(tensor.n_matrices, -1)[matrix]
    if tensor.row_scale is not None or tensor.column_scale is not None:
        row, column = factors(tensor, matrix)
        _native.multiply(
            ranks, start, codebook, row, column, tensor.float_format.native, out.view(np.uint8)
        )
        return
    patterns = tensor.float_format.narrow(codebook)
    if tensor.float_format is FloatFormat.F32:
        _native.gather32(ranks, patterns, out)
    else:
        _native.gather16(ranks, patterns, out)


def factors(
    tensor: ClusteredTensor, matrix: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The factors of one matrix's rows and columns, float32, ones where there are none."""
    shape = tensor.shape if tensor.codebook.ndim == 1 else tensor.shape[1:]
    n_rows = shape[0] if shape else 1
    n_columns = int(np.prod(shape[1:], dtype=np.int64))
    row, column = (
        np.ones(length, np.float32)
        if scale is None
        else factors_of(scale.reshape(tensor.n_matrices, -1)[matrix])
        for scale, length in ((tensor.row_scale, n_rows), (tensor.column_scale, n_columns))
    )
    return row, column
