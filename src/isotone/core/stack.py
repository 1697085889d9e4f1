"""The values of a tensor from the fits of its matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isotone.core.fit import Fit
from isotone.core.float_format import Bits, FloatFormat
from isotone.core.scales.codes import UNITY
from isotone.core.values import Values


def stack_values(
    fits: Sequence[Fit],
    shape: tuple[int, ...],
    float_format: FloatFormat,
    protected_index: NDArray[np.int64],
    protected_value: Bits,
    *,
    k: int | None = None,
) -> Values:
    """Return the values of a tensor whose matrices were fitted one by one.

    Parameters
    ----------
    fits : sequence of Fit
        The fit of each matrix, in order.
    shape : tuple of int
        The shape of the tensor.
    float_format : FloatFormat
        The format of its weights.
    protected_index : int64 array, `[n]`
        Ascending positions of the protected weights in the flattened tensor.
    protected_value : uint16 or uint32 array, `[n]`
        The protected weights as bit patterns.
    k : int, optional
        The length of each codebook of a stack, whose codebooks are all of one length. None if the
        tensor is a single matrix.

    Returns
    -------
    Values
        With a codebook for each matrix if `k` is given.
    """
    stack = k is not None
    matrix_shape = shape[1:] if stack else shape
    n_rows = matrix_shape[0] if matrix_shape else 1
    n_columns = int(np.prod(matrix_shape[1:], dtype=np.int64))
    codebooks = [fit.codebook for fit in fits]
    return Values(
        shape=shape,
        float_format=float_format,
        codebook=codebooks[0] if k is None else np.stack([pad_codebook(c, k) for c in codebooks]),
        row_scale=stack_scales([fit.row_scale for fit in fits], n_rows, stack=stack),
        column_scale=stack_scales([fit.column_scale for fit in fits], n_columns, stack=stack),
        protected_index=protected_index,
        protected_value=protected_value,
    )


def stack_scales(
    codes: Sequence[NDArray[np.uint8] | None], length: int, *, stack: bool
) -> NDArray[np.uint8] | None:
    """Return the scales of a tensor's matrices as one array.

    Parameters
    ----------
    codes : sequence of uint8 array, `[length]`, or None
        The codes of each matrix; None for a matrix without scales, which gets ones.
    length : int
        The number of rows, or of columns.
    stack : bool
        Whether the tensor is a stack.

    Returns
    -------
    uint8 array or None
        `[length]`, or `[matrices, length]` for a stack; None if no matrix has scales.
    """
    if all(each is None for each in codes):
        return None
    ones = np.full(length, UNITY, np.uint8)
    stacked = np.stack([ones if each is None else each for each in codes])
    return stacked if stack else stacked[0]


def pad_codebook(codebook: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Return a codebook of a given length, for a stack whose codebooks are all of one length.

    A matrix with fewer distinct values than k needs fewer centroids. Centroids that no weight
    uses, just above its largest, fill the codebook up, so that it stays strictly ascending.

    Parameters
    ----------
    codebook : float32 array, `[j]`
        The centroids, strictly ascending.
    k : int
        The length to reach, at least j.

    Returns
    -------
    float32 array, `[k]`
        Strictly ascending.
    """
    padded = np.empty(k, np.float32)
    padded[: len(codebook)] = codebook
    for rank in range(len(codebook), k):
        padded[rank] = np.nextafter(padded[rank - 1], np.float32(np.inf))
    return padded
