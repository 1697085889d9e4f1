"""The values of a tensor from the fits of its matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from isotone.core.fit import Fit
from isotone.core.float_format import FloatFormat
from isotone.core.scales.codes import UNITY
from isotone.core.values import Values


def stack_values(
    fits: Sequence[Fit],
    shape: tuple[int, ...],
    float_format: FloatFormat,
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
    k : int, optional
        The length of each codebook of a stack, whose codebooks are all of one length. None if the
        tensor is a single matrix.

    Returns
    -------
    Values
        With a codebook for each matrix if `k` is given; without protected weights.
    """
    codebooks = [fit.codebook for fit in fits]
    codebook = codebooks[0] if k is None else np.stack([_padded(each, k) for each in codebooks])
    values = Values(shape, float_format, codebook)
    n_rows, n_columns = values.matrix_shape
    stack = k is not None
    return replace(
        values,
        row_scale=_stacked([fit.row_scale for fit in fits], n_rows, stack=stack),
        column_scale=_stacked([fit.column_scale for fit in fits], n_columns, stack=stack),
    )


def _stacked(
    codes: Sequence[NDArray[np.uint8] | None], length: int, *, stack: bool
) -> NDArray[np.uint8] | None:
    """The scale codes of all matrices as one array; ones for those that have none.

    `[length]`, or `[matrices, length]` for a stack; None if no matrix has scales.
    """
    if all(each is None for each in codes):
        return None
    ones = np.full(length, UNITY, np.uint8)
    stacked = np.stack([ones if each is None else each for each in codes])
    return stacked if stack else stacked[0]


def _padded(codebook: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """A codebook of length k.

    A matrix with fewer distinct values than k needs fewer centroids. Centroids that no weight
    uses, just above its largest, fill the codebook up, so that it stays strictly ascending.
    """
    padded = np.empty(k, np.float32)
    padded[: len(codebook)] = codebook
    for rank in range(len(codebook), k):
        padded[rank] = np.nextafter(padded[rank - 1], np.float32(np.inf))
    return padded
