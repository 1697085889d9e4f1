"""The weighted histogram that stands for a matrix, and what can be done with it.

A 16-bit weight has at most 65,536 values, so a matrix of any size is a histogram, and k-means on
the matrix is *weighted* k-means on the distinct values of the histogram. The same holds for float32
as long as its distinct values are few (up to a million). Beyond that the weights fall into 2^20
bins whose counts, means and spreads are exact. The bins in which a border falls are then split into
their single values, so the distance that remains to the optimum is bounded (`optimality_bound`).

`isotone.core.counting` makes histograms from weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from isotone.core.moments import Moments

_NORMAL_ROOT_4 = 0.8221789587**4  # mean of sqrt|z| of a standard normal z


@dataclass(frozen=True)
class Histogram:
    """The distinct values of one matrix, or bins of values, ascending.

    Attributes
    ----------
    keys : uint32 array, `[n]`
        The order key of each bin's first value, see `order_keys`.
    values : float64 array, `[n]`
        The mean of the weights in each bin.
    counts : int64 array, `[n]`
        The number of weights in each bin, at least 1.
    within : float64 array, `[n]`
        The squared error of each bin's weights about `values`; 0 if the bin is a single value.
    widths : float64 array, `[n]`
        The distance between the smallest and the largest value that each bin can hold; 0 if the
        bin is a single value.
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
        """Return a histogram whose bins are single values.

        Parameters
        ----------
        keys : uint32 array, `[n]`
            The order key of each value, ascending.
        values : float64 array, `[n]`
            The distinct values, ascending.
        counts : int64 array, `[n]`
            The number of weights at each value.

        Returns
        -------
        Histogram
            With zeros for `within` and `widths`.
        """
        zeros = np.zeros(len(keys))
        return cls(keys, values, counts, zeros, zeros)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def n_weights(self) -> int:
        """The number of weights in all bins."""
        return int(self.counts.sum())

    @property
    def moments(self) -> Moments:
        """The moments of all weights."""
        n = self.n_weights
        mean = float((self.counts * self.values).sum()) / n
        squares = float((self.counts * (self.values - mean) ** 2 + self.within).sum())
        return Moments(n, mean, squares)

    @property
    def bulk_mean_square(self) -> float:
        """The mean square of a normal distribution that has the same mean of square roots.

        It is taken over the weights that are not zero, and shared among all. Where tails are heavy,
        this stays the size of the bulk, which a few outliers would drown in the mean square.
        """
        roots = np.sqrt(np.abs(self.values))
        used = int(self.counts[roots > 0].sum())
        if used == 0:
            return 0.0
        mean = float((self.counts * roots).sum()) / used
        return mean**4 / _NORMAL_ROOT_4 * used / self.n_weights

    def where(self, keep: NDArray[np.bool_]) -> Histogram:
        """Return the bins that a mask keeps.

        Parameters
        ----------
        keep : bool array, `[n]`
            True for the bins to keep.

        Returns
        -------
        Histogram
            The kept bins, in order.
        """
        return Histogram(
            self.keys[keep],
            self.values[keep],
            self.counts[keep],
            self.within[keep],
            self.widths[keep],
        )


def coarsen(histogram: Histogram, at_least: int) -> Histogram:
    """Merge neighbouring bins whose order keys share their leading bits.

    Parameters
    ----------
    histogram : Histogram
        The bins to merge.
    at_least : int
        How many bins to leave; as few leading bits are compared as leave that many.

    Returns
    -------
    Histogram
        The merged bins, or `histogram` itself if it has no more than `at_least` bins.
    """
    for shift in range(20, 0, -1):
        starts = np.flatnonzero(np.diff(histogram.keys >> shift, prepend=np.uint32(1 << 31)))
        if len(starts) >= at_least:
            return merge(histogram, starts)
    return histogram


def merge(histogram: Histogram, starts: NDArray[np.intp]) -> Histogram:
    """Merge runs of neighbouring bins.

    Parameters
    ----------
    histogram : Histogram
        The bins to merge.
    starts : int array, `[m]`
        The first bin of each run, ascending from 0; a run ends where the next one begins.

    Returns
    -------
    Histogram
        One bin for each run, with its exact count, mean and squared error.
    """
    run = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(histogram))))
    counts = np.add.reduceat(histogram.counts, starts)
    anchors = histogram.values[starts]
    offsets = histogram.counts * (histogram.values - anchors[run])
    means = anchors + np.add.reduceat(offsets, starts) / counts
    spread = histogram.within + histogram.counts * (histogram.values - means[run]) ** 2
    widths = np.maximum.reduceat(histogram.values + histogram.widths, starts) - anchors
    return Histogram(histogram.keys[starts], means, counts, np.add.reduceat(spread, starts), widths)


def order_keys(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Return unsigned integers in the order of float32 values.

    Parameters
    ----------
    values : float32 array
        Of any shape, without NaN.

    Returns
    -------
    uint32 array
        Of the same shape; both zeros give the same key.
    """
    bits = values.view(np.uint32)
    bits = np.where(bits == 0x80000000, np.uint32(0), bits)
    return np.where(bits >> 31, ~bits, bits | np.uint32(0x80000000)).astype(np.uint32)


def values_of(keys: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Return the values of order keys: the inverse of `order_keys`.

    Parameters
    ----------
    keys : uint32 array
        Order keys, of any shape.

    Returns
    -------
    float32 array
        Of the same shape.
    """
    bits = np.where(keys >> 31, keys & np.uint32(0x7FFFFFFF), ~keys).astype(np.uint32)
    return bits.view(np.float32)


def optimality_bound(histogram: Histogram) -> float:
    """Return by how much the best clustering of the weights could beat that of the bins.

    Snapping a border of the true optimum to the end of the bin in which it falls costs, for each
    weight of the bin, at most 2 * width * (distance of the two centroids). Those distances sum to
    at most the range of the values.

    Parameters
    ----------
    histogram : Histogram
        The bins that were clustered.

    Returns
    -------
    float
        A bound on the difference of the squared errors; 0 if all bins are single values.
    """
    if len(histogram) == 0 or not histogram.widths.any():
        return 0.0
    extent = float(histogram.values[-1] - histogram.values[0])
    return 2.0 * extent * float((histogram.counts * histogram.widths).max())
