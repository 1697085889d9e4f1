"""Entropy-constrained clustering: the least squared error plus a price on every stored bit.

k-means finds the K values with the least error. A file wants the least error for its bytes, and
there a value's code may be shorter the more weights it has (Chou, Lookabaugh and Gray, "Entropy-
constrained vector quantization", 1989). For one dimension the best clusters are runs of the sorted
values, and the cost of a run depends on nothing outside of it, so the cheapest partition into runs,
some of them protected weights, is found exactly by dynamic programming (`_native.partition`). The
number of values comes out of it.

That is quadratic in the number of points, so it is done on points merged to a small part of the
distance that neighbouring centroids will have; on all points, centroids and code lengths are then
made the best for each other in turn (`_native.lloyd_iterations`), which never raises the cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isotone import _native
from isotone.core.clustering.kmeans import centroids
from isotone.core.clustering.method import Assigned, Split
from isotone.core.clustering.outliers import GAP_BITS
from isotone.core.histogram import Histogram, merge

CENTROID_BITS = 32
"""What a centroid takes in the codebook."""

SYMBOL_BITS = 16
"""What a centroid takes in the head of each coded chunk that its ranks are in."""

_SLOTS = 4096  # of the coder's frequencies
_POINTS_A_STEP = 12  # merged points between neighbouring centroids, where those lie evenly
_FEWEST_POINTS, _MOST_POINTS = 1000, 3000
_HALVINGS = 12  # of the range in which a centroid price gives no more than max_k
_HIGH_RATE = 2.0 * math.log(2.0) / 12.0  # price of a bit / step^2, where steps are small
_RANK_BITS = 8.0  # of the rank that a protected weight still has: a guess, for it is rare


@dataclass(frozen=True)
class EntropyMethod:
    """Clusters a matrix at a price.

    price: of a bit for one weight, in units of the mean square of what is clustered, outliers
        aside (see Points.bulk_mean_square). In the middle range four times the price takes one bit
        off each weight.
    max_k: centroids at most, up to 256.
    protect: whether weights may be stored exactly, where that is cheaper.
    unit: what the price is in units of, instead: a squared error of one weight.
    """

    lambda_: float
    max_k: int = 256
    protect: bool = True
    unit: float | None = None

    def assign(
        self, points: Histogram, value_bits: int, n_chunks: int, _split: Split | None = None
    ) -> Assigned:
        """See Method. Cost: about 2 ms at four bits, plus a few passes over the points."""
        bit = self.lambda_ * (points.bulk_mean_square if self.unit is None else self.unit)
        if bit == 0.0 or len(points) == 1:
            return Assigned.whole(points)
        exact = bit * (GAP_BITS + value_bits + _RANK_BITS) if self.protect else math.inf
        centroid = bit * (CENTROID_BITS + n_chunks * SYMBOL_BITS)
        labels = self._labels(points, bit, centroid, exact)
        if labels.max() < 0:  # so few weights, and so high a value of exactness, that none is left
            labels = self._labels(points, bit, centroid, math.inf)
        protected = labels < 0
        starts = np.flatnonzero(np.diff(labels[~protected], prepend=-1))
        codebook = centroids(points.where(~protected), starts)
        return Assigned(points, codebook, _filled(labels), protected)

    def _labels(
        self, points: Histogram, bit: float, centroid: float, exact: float
    ) -> NDArray[np.int32]:
        """For each point the number of its cluster, or -1 where it is protected."""
        coarse, run = _coarse(points, math.sqrt(bit / _HIGH_RATE) / _POINTS_A_STEP)
        found, centroid = self._partition(coarse, bit, centroid, exact)
        labels: NDArray[np.int32] = found[run]
        weights = points.counts.astype(np.float64)
        _native.lloyd_iterations(points.values, weights, bit, centroid, exact, labels)
        return labels

    def _partition(
        self, points: Histogram, bit: float, centroid: float, exact: float
    ) -> tuple[NDArray[np.int32], float]:
        """The cheapest labels with no more than max_k clusters, and the centroid price they took.

        Where the optimum has more, centroids are made dearer, as little as that needs.
        """
        weights = points.counts.astype(np.float64)

        def at(lambda_: float) -> NDArray[np.int32]:
            labels = np.empty(len(points), np.int32)
            _native.partition(points.values, weights, bit, lambda_, exact, labels)
            return labels

        labels, low = at(centroid), centroid
        if labels.max() < self.max_k:
            return labels, centroid
        while labels.max() >= self.max_k:
            low, centroid = centroid, centroid * 64.0
            labels = at(centroid)
        for _ in range(_HALVINGS):
            if labels.max() == self.max_k - 1:
                break
            middle = math.sqrt(low * centroid)
            between = at(middle)
            if between.max() >= self.max_k:
                low = middle
            else:
                labels, centroid = between, middle
        return labels, centroid


def coded_bits(assigned: Assigned, value_bits: int, n_chunks: int) -> float:
    """Bits that a clustered matrix will take: ranks, codebook, protected weights; no factors."""
    return stored_bits(assigned.counts, assigned.n_protected, value_bits, n_chunks)


def stored_bits(
    counts: NDArray[np.int64], n_protected: int, value_bits: int, n_chunks: int
) -> float:
    """The same from the weights of each rank, [k], and of those that are protected."""
    return (
        _ranks_bits(counts)
        + len(counts) * (CENTROID_BITS + n_chunks * SYMBOL_BITS)
        + n_protected * (GAP_BITS + value_bits)
    )


def _ranks_bits(counts: NDArray[np.int64]) -> float:
    """Bits in which ranks are coded that occur so often ([k]), by frequencies in 1/4096."""
    used = counts[counts > 0].astype(np.float64)
    slots = np.maximum(used, used.sum() / _SLOTS)
    return float((used * np.log2(slots.sum() / slots)).sum())


def entropy_bits(counts: NDArray[np.int64]) -> float:
    """Bits that ranks hold which occur so often ([k]): the sum of -log2 of each one's share."""
    used = counts[counts > 0].astype(np.float64)
    return float((used * np.log2(used.sum() / used)).sum())


def _filled(labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Ranks for protected points too: that of the clustered point before, or else the first one."""
    last = np.maximum.accumulate(np.where(labels < 0, -1, np.arange(len(labels))))
    return np.where(last < 0, 0, labels[last]).astype(np.uint8)


def _coarse(points: Histogram, width: float) -> tuple[Histogram, NDArray[np.intp]]:
    """Points merged within steps of a width, and for each point the merged one it went into.

    No points are merged while there are few of them.
    """
    if len(points) <= _FEWEST_POINTS:
        return points, np.arange(len(points))
    extent = float(points.values[-1] - points.values[0])
    width = min(width, extent / _FEWEST_POINTS)
    while True:
        steps = np.floor((points.values - points.values[0]) / width)
        starts = np.flatnonzero(np.diff(steps, prepend=-1.0))
        if len(starts) <= _MOST_POINTS:
            break
        width *= 1.0 + len(starts) / _MOST_POINTS / 2.0
    run = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(points))))
    return merge(points, starts), run
