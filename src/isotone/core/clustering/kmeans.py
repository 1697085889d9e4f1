"""Globally optimal 1-D k-means on counted weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isotone import _native
from isotone.core.histogram import Histogram

MIN_K, MAX_K = 2, 256


@dataclass(frozen=True)
class Clustering:
    """The best `k` clusters of some points.

    codebook: [k] float32, strictly ascending.
    starts: [k] int64, the first point of each cluster; clusters are runs of points.
    """

    codebook: NDArray[np.float32]
    starts: NDArray[np.int64]


def solve(points: Histogram, k: int) -> Clustering:
    """Cluster points so that the sum of squared errors is the least there is.

    Where there are no more than k points, each becomes a centroid of its own and the codebook is
    as short as that. Centroids are exact means, rounded once to float32; the codebook stays
    strictly ascending, since a mean lies between the smallest and the largest value of its cluster,
    and clusters do not overlap.

    Cost: O(k n log n) time and 4 k n bytes for n points; dynamic programming as in Grønlund et
    al., arXiv 1701.07204.
    """
    weights = points.counts.astype(np.float64)
    if len(points) <= k:
        starts = np.arange(len(points))
    else:
        starts = _native.solve(points.values, weights, k)[:-1]
    return Clustering(centroids(points, starts), starts)


def centroids(points: Histogram, starts: NDArray[np.intp]) -> NDArray[np.float32]:
    """The mean of each run of points, from one of `starts` to the next: a codebook."""
    # Means about a value of the cluster itself: no cancellation, whatever lies elsewhere.
    weights = points.counts.astype(np.float64)
    anchors = points.values[starts]
    cluster = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(points))))
    offsets = np.add.reduceat(weights * (points.values - anchors[cluster]), starts)
    means: NDArray[np.float64] = anchors + offsets / np.add.reduceat(weights, starts)
    return means.astype(np.float32)


def nearest(codebook: NDArray[np.float32], values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The rank of the centroid nearest to each value ([n] -> [n]); of two as near, the smaller."""
    centroids = codebook.astype(np.float64)
    return np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values).astype(np.uint8)
