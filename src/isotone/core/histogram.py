"""Weights counted: the weighted 1-D problem that stands for a matrix.

A 16-bit weight has at most 65,536 values, so a matrix of any size is a histogram, and k-means on
the matrix is *weighted* k-means on the histogram's distinct values. The same holds for float32
while its distinct values are few (up to a million). Beyond that the weights fall into 2^20 bins
whose counts, means and spreads are exact; the bins in which a border falls are then split into
their single values, so what remains of the gap to the optimum is bounded (`optimality_gap`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from isotone import _native
from isotone.core.float_format import Bits, FloatFormat
from isotone.core.moments import Moments
from isotone.errors import InputError

MAX_DISTINCT = 1 << 20
"""float32 matrices with more distinct values than this are binned."""

_NORMAL_ROOT_4 = 0.8221789587**4  # mean of sqrt|z| of a standard normal z
_BIN_BITS = 12
_N_BINS = 1 << 20
_BIN_KEYS = 1 << _BIN_BITS

Chunks = Callable[[], Iterable[Bits]]
"""Reads a matrix from its start, in pieces; called once for each pass over it."""


@dataclass(frozen=True)
class Histogram:
    """The distinct values (or bins of values) of one matrix, ascending.

    keys: [n] uint32, the order key of the point's first value (see `order_keys`).
    values: [n] float64, the mean of the weights at the point.
    counts: [n] int64, how many weights are there, at least 1.
    within: [n] float64, their squared error about `values`; 0 where a point is a single value.
    widths: [n] float64, the distance between the smallest and the largest value that the point can
        hold; 0 for a single value.
    """

    keys: NDArray[np.uint32]
    values: NDArray[np.float64]
    counts: NDArray[np.int64]
    within: NDArray[np.float64]
    widths: NDArray[np.float64]

    @classmethod
    def exact(
        cls,
        keys: NDArray[np.uint32],
        values: NDArray[np.float64],
        counts: NDArray[np.int64],
    ) -> Self:
        """Points that are single values."""
        zeros = np.zeros(len(keys))
        return cls(keys, values, counts, zeros, zeros)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def n_weights(self) -> int:
        """How many weights there are in all."""
        return int(self.counts.sum())

    @property
    def moments(self) -> Moments:
        """Mean and spread of all weights."""
        n = self.n_weights
        mean = float((self.counts * self.values).sum()) / n
        squares = float((self.counts * (self.values - mean) ** 2 + self.within).sum())
        return Moments(n, mean, squares)

    @property
    def bulk_mean_square(self) -> float:
        """The mean square that a normal distribution with the same mean square root would have.

        Taken over the weights that are not zero, and shared among all. Where tails are heavy, this
        stays the size of the bulk, which a few outliers would drown in the mean square.
        """
        roots = np.sqrt(np.abs(self.values))
        used = int(self.counts[roots > 0].sum())
        if used == 0:
            return 0.0
        mean = float((self.counts * roots).sum()) / used
        return mean**4 / _NORMAL_ROOT_4 * used / self.n_weights

    def where(self, keep: NDArray[np.bool_]) -> Histogram:
        """The points that `keep` ([n] bool) names."""
        return Histogram(
            self.keys[keep],
            self.values[keep],
            self.counts[keep],
            self.within[keep],
            self.widths[keep],
        )


def summarise(points: Histogram, at_least: int) -> Histogram:
    """Neighbouring points made one, by the leading bits of their keys.

    As few leading bits as leave `at_least` points; `points` itself where there are not that many.
    """
    for shift in range(20, 0, -1):
        starts = np.flatnonzero(np.diff(points.keys >> shift, prepend=np.uint32(1 << 31)))
        if len(starts) >= at_least:
            return merge(points, starts)
    return points


def merge(points: Histogram, starts: NDArray[np.intp]) -> Histogram:
    """Runs of points, from each of `starts` to the next, as one point each."""
    run = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(points))))
    counts = np.add.reduceat(points.counts, starts)
    anchors = points.values[starts]
    offsets = points.counts * (points.values - anchors[run])
    means = anchors + np.add.reduceat(offsets, starts) / counts
    spread = points.within + points.counts * (points.values - means[run]) ** 2
    widths = np.maximum.reduceat(points.values + points.widths, starts) - anchors
    return Histogram(points.keys[starts], means, counts, np.add.reduceat(spread, starts), widths)


def order_keys(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Unsigned integers in the order of float32 values; both zeros give the same one."""
    bits = values.view(np.uint32)
    bits = np.where(bits == 0x80000000, np.uint32(0), bits)
    return np.where(bits >> 31, ~bits, bits | np.uint32(0x80000000)).astype(np.uint32)


def values_of(keys: NDArray[np.uint32]) -> NDArray[np.float32]:
    """The inverse of `order_keys`."""
    bits = np.where(keys >> 31, keys & np.uint32(0x7FFFFFFF), ~keys).astype(np.uint32)
    return bits.view(np.float32)


def collect(chunks: Chunks, float_format: FloatFormat, name: str) -> Histogram:
    """Count a matrix.

    One pass over the weights; float32 with many distinct values takes two. Memory does not depend
    on the size of the matrix.

    Raises InputError, naming the tensor, for NaN and infinity, and for a matrix without weights.
    """
    if float_format is FloatFormat.F32:
        points = _collect_distinct(chunks, name) or _collect_bins(chunks)
    else:
        points = _collect_patterns(chunks, float_format, name)
    if len(points) == 0:
        raise InputError(f"{name}: has no weights to cluster; exclude it")
    return points


def refine(points: Histogram, chunks: Chunks, at: NDArray[np.float64]) -> Histogram:
    """Split the bins that hold the values `at` (any shape) into single values; one pass.

    Returns `points` itself where nothing is left to split.
    """
    bins = np.unique(order_keys(at.astype(np.float32)) >> _BIN_BITS)
    binned = points.widths > 0
    bins = bins[np.isin(bins, points.keys[binned] >> _BIN_BITS)]
    if len(bins) == 0:
        return points
    slot = np.full(_N_BINS, -1, np.int32)
    slot[bins] = np.arange(len(bins))
    counts = np.zeros((len(bins), _BIN_KEYS), np.uint64)
    for chunk in chunks():
        _native.count_within_bins(chunk, slot, counts.reshape(-1))
    row, low = np.nonzero(counts)
    keys = ((bins[row] << _BIN_BITS) | low).astype(np.uint32)
    split = Histogram.exact(
        keys, values_of(keys).astype(np.float64), counts[row, low].astype(np.int64)
    )
    rest = points.where(~(binned & np.isin(points.keys >> _BIN_BITS, bins)))
    keys = np.concatenate([rest.keys, split.keys])
    order = np.argsort(keys)
    return Histogram(
        keys[order],
        np.concatenate([rest.values, split.values])[order],
        np.concatenate([rest.counts, split.counts])[order],
        np.concatenate([rest.within, split.within])[order],
        np.concatenate([rest.widths, split.widths])[order],
    )


def optimality_gap(points: Histogram) -> float:
    """How much lower the distortion of the best clustering of the weights themselves could be.

    Snapping a border of the true optimum to the end of the bin it falls in costs, for each weight
    of the bin, at most 2 * width * (distance of the two centroids); those distances sum to at most
    the range. 0 where all points are single values.
    """
    if len(points) == 0 or not points.widths.any():
        return 0.0
    extent = float(points.values[-1] - points.values[0])
    return 2.0 * extent * float((points.counts * points.widths).max())


def _collect_patterns(chunks: Chunks, float_format: FloatFormat, name: str) -> Histogram:
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
    counts = np.zeros(_N_BINS, np.uint64)
    sums, squares = np.zeros(_N_BINS), np.zeros(_N_BINS)
    for chunk in chunks():
        _native.count_bins(chunk, counts, sums, squares)
    bins = np.flatnonzero(counts)
    keys: NDArray[np.uint32] = (bins << _BIN_BITS).astype(np.uint32)
    n = counts[bins].astype(np.float64)
    low = values_of(keys).astype(np.float64)
    high = values_of(keys | np.uint32(_BIN_KEYS - 1)).astype(np.float64)
    nearest_zero = np.where(keys >> 31, low, high)
    offset = sums[bins] / n
    values = nearest_zero + np.where(keys >> 31, offset, -offset)
    within = np.maximum(squares[bins] - n * offset**2, 0.0)
    return Histogram(keys, values, n.astype(np.int64), within, high - low)


def refuse_not_finite(n_bad: int, name: str) -> None:
    """Raise InputError, naming the tensor, where some of its weights are NaN or infinite."""
    if n_bad:
        raise InputError(
            f"{name}: {n_bad} of its weights are NaN or infinite; "
            "repair the checkpoint, or leave the tensor out with --exclude"
        )
