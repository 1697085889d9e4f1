"""Counting the weights of a matrix into a histogram, in passes over pieces of it.

The memory that counting takes does not depend on the size of the matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from isotone import _native
from isotone.core.float_format import Bits, FloatFormat
from isotone.core.histogram import Histogram, order_keys, values_of
from isotone.errors import InputError

MAX_DISTINCT = 1 << 20
"""float32 matrices with more distinct values than this are counted in bins."""

_BIN_KEY_BITS = _native.BIN_KEY_BITS
_BIN_KEYS = 1 << _BIN_KEY_BITS
_N_BINS = 1 << 32 - _BIN_KEY_BITS

Chunks = Callable[[], Iterable[Bits]]
"""Reads a matrix from its start, in pieces; called once for each pass over it."""


def collect(chunks: Chunks, float_format: FloatFormat, name: str) -> Histogram:
    """Count the weights of a matrix.

    Parameters
    ----------
    chunks : callable
        Reads the matrix from its start in pieces, as bit patterns; called once for each pass.
    float_format : FloatFormat
        The format of the patterns.
    name : str
        The name of the tensor, for messages.

    Returns
    -------
    Histogram
        Single values, or bins for float32 with more than `MAX_DISTINCT` distinct values.

    Raises
    ------
    InputError
        If a weight is NaN or infinite, or if there are no weights.

    Notes
    -----
    The cost is one pass over the weights, and two for float32 with many distinct values.
    """
    if float_format is FloatFormat.F32:
        histogram = _collect_distinct(chunks, name) or _collect_bins(chunks)
    else:
        histogram = _collect_patterns(chunks, float_format, name)
    if len(histogram) == 0:
        raise InputError(f"{name}: has no weights to cluster; exclude it")
    return histogram


def refine(histogram: Histogram, chunks: Chunks, at: NDArray[np.float64]) -> Histogram:
    """Split the bins in which some values fall into single values.

    Parameters
    ----------
    histogram : Histogram
        The bins of the matrix.
    chunks : callable
        Reads the float32 matrix, as for `collect`; called once, or not at all.
    at : float64 array
        The values whose bins are split, of any shape.

    Returns
    -------
    Histogram
        The finer bins, or `histogram` itself if there is nothing to split.
    """
    bins = np.unique(order_keys(at.astype(np.float32)) >> _BIN_KEY_BITS)
    binned = histogram.widths > 0
    bins = bins[np.isin(bins, histogram.keys[binned] >> _BIN_KEY_BITS)]
    if len(bins) == 0:
        return histogram
    slot = np.full(_N_BINS, -1, np.int32)
    slot[bins] = np.arange(len(bins))
    counts = np.zeros((len(bins), _BIN_KEYS), np.uint64)
    for chunk in chunks():
        _native.count_within_bins(chunk, slot, counts.reshape(-1))
    row, low = np.nonzero(counts)
    keys = ((bins[row] << _BIN_KEY_BITS) | low).astype(np.uint32)
    split = Histogram.exact(
        keys, values_of(keys).astype(np.float64), counts[row, low].astype(np.int64)
    )
    rest = histogram.where(~(binned & np.isin(histogram.keys >> _BIN_KEY_BITS, bins)))
    keys = np.concatenate([rest.keys, split.keys])
    order = np.argsort(keys)
    return Histogram(
        keys[order],
        np.concatenate([rest.values, split.values])[order],
        np.concatenate([rest.counts, split.counts])[order],
        np.concatenate([rest.within, split.within])[order],
        np.concatenate([rest.widths, split.widths])[order],
    )


def refuse_not_finite(n_bad: int, name: str) -> None:
    """Refuse a tensor in which some weights are NaN or infinite.

    Parameters
    ----------
    n_bad : int
        How many weights are NaN or infinite.
    name : str
        The name of the tensor, for the message.

    Raises
    ------
    InputError
        If there are any.
    """
    if n_bad:
        raise InputError(
            f"{name}: {n_bad} of its weights are NaN or infinite; "
            "repair the checkpoint, or leave the tensor out with --exclude"
        )


def _collect_patterns(chunks: Chunks, float_format: FloatFormat, name: str) -> Histogram:
    """Count 16-bit weights by their bit patterns."""
    counts = np.zeros(1 << 16, np.uint64)
    for chunk in chunks():
        _native.count_patterns(chunk, counts)
    patterns = np.flatnonzero(counts).astype(np.uint16)
    values = float_format.upcast(patterns)
    n_bad = int(counts[patterns[~np.isfinite(values)]].sum())
    refuse_not_finite(n_bad, name)
    keys, inverse = np.unique(order_keys(values), return_inverse=True)
    merged = np.zeros(len(keys), np.int64)  # -0 joins 0
    np.add.at(merged, inverse, counts[patterns].astype(np.int64))
    return Histogram.exact(keys, values_of(keys).astype(np.float64), merged)


def _collect_distinct(chunks: Chunks, name: str) -> Histogram | None:
    """Count the distinct values of a float32 matrix, or return None if they are too many."""
    counter = _native.DistinctCounter(MAX_DISTINCT)
    few = True
    n_bad = 0
    for chunk in chunks():
        n_bad += _native.count_not_finite(chunk)
        few = few and counter.add(chunk)
    refuse_not_finite(n_bad, name)
    if not few:
        return None
    keys, counts = counter.sorted()
    return Histogram.exact(keys, values_of(keys).astype(np.float64), counts)


def _collect_bins(chunks: Chunks) -> Histogram:
    """Count a float32 matrix in bins, with exact counts, means and squared errors."""
    counts = np.zeros(_N_BINS, np.uint64)
    sums, squares = np.zeros(_N_BINS), np.zeros(_N_BINS)
    for chunk in chunks():
        _native.count_bins(chunk, counts, sums, squares)
    bins = np.flatnonzero(counts)
    keys: NDArray[np.uint32] = (bins << _BIN_KEY_BITS).astype(np.uint32)
    n = counts[bins].astype(np.float64)
    low = values_of(keys).astype(np.float64)
    high = values_of(keys | np.uint32(_BIN_KEYS - 1)).astype(np.float64)
    nearest_zero = np.where(keys >> 31, low, high)
    offset = sums[bins] / n
    values = nearest_zero + np.where(keys >> 31, offset, -offset)
    within = np.maximum(squares[bins] - n * offset**2, 0.0)
    return Histogram(keys, values, n.astype(np.int64), within, high - low)
