"""What the ranks of a tensor stand for: codebook, scales and protected weights.

The values live apart from the ranks. Clustering finds both; healing, studies and overlays change
values only, and whatever restores weights asks `Values.decode`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from isotone import _native
from isotone.core.float_format import Bits, FloatFormat
from isotone.core.scales.codes import Scale, decode_scales
from isotone.errors import InputError


def _no_positions() -> NDArray[np.int64]:
    return np.empty(0, np.int64)


def _no_values() -> Bits:
    return np.empty(0, np.uint32)


@dataclass(frozen=True)
class Values:
    """The values of one tensor, without its ranks.

    A weight is `codebook[rank] * row_scale[row] * column_scale[column]`, each product rounded to
    float32 in that order, then rounded to `float_format`. Protected weights replace the result. A
    stack of matrices (fused experts) has a codebook for each matrix. Rows are the first axis of a
    matrix, columns are all its other axes flattened in row-major order.

    Attributes
    ----------
    shape : tuple of int
        The shape of the tensor: `[rows, ...]`, or `[matrices, rows, ...]` for a stack.
    float_format : FloatFormat
        The format of the tensor's weights, before clustering and after decoding.
    codebook : float32 array, `[k]` or `[matrices, k]`
        The centroids, strictly ascending along the last axis.
    row_scale : uint8, float16 or float32 array, `[rows]` or `[matrices, rows]`, optional
        Scales of the rows: uint8 codes (see `isotone.core.scales.codes`) or positive numbers.
    column_scale : uint8, float16 or float32 array, `[columns]` or `[matrices, columns]`, optional
        Scales of the columns, likewise.
    protected_index : int64 array, `[n]`
        Ascending positions of the protected weights in the flattened tensor.
    protected_value : uint16 or uint32 array, `[n]`
        The protected weights as bit patterns of `float_format`.

    Examples
    --------
    >>> values = Values((2, 2), FloatFormat.F32, codebook=np.float32([-1, 1, 3]))
    >>> out = np.empty(4, np.uint32)
    >>> values.decode(np.uint8([0, 2, 1, 1]), out)
    >>> out.view(np.float32)
    array([-1.,  3.,  1.,  1.], dtype=float32)
    """

    shape: tuple[int, ...]
    float_format: FloatFormat
    codebook: NDArray[np.float32]
    row_scale: Scale | None = None
    column_scale: Scale | None = None
    protected_index: NDArray[np.int64] = field(default_factory=_no_positions)
    protected_value: Bits = field(default_factory=_no_values)

    @property
    def k(self) -> int:
        """The number of centroids in each codebook."""
        return int(self.codebook.shape[-1])

    @property
    def n_matrices(self) -> int:
        """The number of matrices in a stack; 1 for a tensor that is not a stack."""
        return 1 if self.codebook.ndim == 1 else self.codebook.shape[0]

    @property
    def n_weights(self) -> int:
        """The number of weights in the tensor."""
        return math.prod(self.shape)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """The number of rows and columns of each matrix."""
        shape = self.shape if self.codebook.ndim == 1 else self.shape[1:]
        return (shape[0] if shape else 1), math.prod(shape[1:])

    def with_codebook(self, codebook: NDArray[np.float32]) -> Values:
        """Return the same values with another codebook.

        Parameters
        ----------
        codebook : float32 array
            Finite, of the shape of the present codebook. Its order is free, so that studies can
            break it.

        Returns
        -------
        Values
            With the given codebook; all else is shared.

        Raises
        ------
        InputError
            If the codebook has another shape or dtype, or is not finite.
        """
        check_codebook(codebook, self.codebook.shape)
        return dataclasses.replace(self, codebook=codebook)

    def scales(self, matrix: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the scales of one matrix.

        Parameters
        ----------
        matrix : int
            The position of the matrix in the stack.

        Returns
        -------
        row, column : float32 array, `[rows]` and `[columns]`
            Ones if the tensor has no such scales.
        """
        row, column = (
            np.ones(length, np.float32)
            if scale is None
            else decode_scales(scale.reshape(self.n_matrices, -1)[matrix])
            for scale, length in zip(
                (self.row_scale, self.column_scale), self.matrix_shape, strict=True
            )
        )
        return row, column

    def decode(
        self, ranks: NDArray[np.uint8], out: Bits, *, matrix: int = 0, start: int = 0
    ) -> None:
        """Write the weights that a run of ranks stands for, protected weights included.

        Parameters
        ----------
        ranks : uint8 array, `[n]`
            Ranks of consecutive weights of one matrix, each below `k`; not checked.
        out : uint16 or uint32 array, `[n]`
            Receives the weights as bit patterns of `float_format`.
        matrix : int
            The position of the matrix in the stack.
        start : int
            The position of the run's first weight in that matrix.

        Notes
        -----
        The cost is one pass over the run.
        """
        codebook = self.codebook.reshape(self.n_matrices, -1)[matrix]
        if self.row_scale is not None or self.column_scale is not None:
            native = self.float_format.native
            row, column = self.scales(matrix)
            _native.multiply(ranks, start, codebook, row, column, native, out.view(np.uint8))
        elif self.float_format is FloatFormat.F32:
            _native.gather32(ranks, self.float_format.downcast(codebook), out)
        else:
            _native.gather16(ranks, self.float_format.downcast(codebook), out)
        first = matrix * math.prod(self.matrix_shape) + start
        inside = slice(*np.searchsorted(self.protected_index, [first, first + len(out)]))
        out[self.protected_index[inside] - first] = self.protected_value[inside]


def check_codebook(codebook: NDArray[np.float32], shape: tuple[int, ...]) -> None:
    """Check a codebook that is to replace another one.

    Parameters
    ----------
    codebook : float32 array
        The codebook.
    shape : tuple of int
        The shape that it must have.

    Raises
    ------
    InputError
        If the codebook has another shape or dtype, or is not finite.
    """
    if codebook.shape != shape or codebook.dtype != np.float32:
        raise InputError(
            f"a codebook of shape {codebook.shape} and dtype {codebook.dtype} was given; "
            f"expected {shape} float32"
        )
    if not np.isfinite(codebook).all():
        raise InputError("the codebook holds NaN or infinity; expected finite values")


def is_ascending(codebook: NDArray[np.float32]) -> bool:
    """Return whether codebooks are strictly ascending.

    Parameters
    ----------
    codebook : float32 array, `[k]` or `[matrices, k]`
        One codebook, or one for each matrix.

    Returns
    -------
    bool
        Whether each of them is.

    Examples
    --------
    >>> is_ascending(np.float32([[0, 1], [2, 2]]))
    False
    """
    return bool((codebook[..., 1:] > codebook[..., :-1]).all())
