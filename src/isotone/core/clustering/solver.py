"""Globally optimal 1-D k-means on a weighted histogram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isotone import _native
from isotone.core.histogram import Histogram

MIN_K, MAX_K = 2, 256


@dataclass(frozen=True)
class Clustering:
    """The best clusters of a histogram.

    Attributes
    ----------
    codebook : float32 array, `[k]`
        The centroids, strictly ascending.
    starts : int64 array, `[k]`
        The first bin of each cluster; clusters are runs of bins.
    """

    codebook: NDArray[np.float32]
    starts: NDArray[np.int64]


def solve(histogram: Histogram, k: int) -> Clustering:
    """Cluster a histogram so that the sum of squared errors is the least there is.

    If there are no more than k bins, each becomes a centroid of its own, and the codebook is as
    short as that. Centroids are exact means, rounded once to float32. The codebook stays strictly
    ascending, since a mean lies between the smallest and the largest value of its cluster, and
    clusters do not overlap.

    Parameters
    ----------
    histogram : Histogram
        The weights to cluster.
    k : int
        The number of centroids, 2 to 256.

    Returns
    -------
    Clustering
        At most k clusters.

    Notes
    -----
    The cost is O(k n log n) time and 4 k n bytes for n bins.

    References
    ----------
    Grønlund et al., "Fast exact k-means, k-medians and Bregman divergence clustering in 1D",
    arXiv 1701.07204.
    """
    weights = histogram.counts.astype(np.float64)
    if len(histogram) <= k:
        starts = np.arange(len(histogram))
    else:
        starts = _native.solve(histogram.values, weights, k)[:-1]
    return Clustering(centroids(histogram, starts), starts)


def centroids(histogram: Histogram, starts: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the mean of each run of bins: a codebook.

    Parameters
    ----------
    histogram : Histogram
        The clustered weights.
    starts : int array, `[k]`
        The first bin of each run, ascending from 0; a run ends where the next one begins.

    Returns
    -------
    float32 array, `[k]`
        Exact means, rounded once.
    """
    # Means are taken about a value of the cluster itself: nothing cancels, whatever lies elsewhere.
    weights = histogram.counts.astype(np.float64)
    anchors = histogram.values[starts]
    cluster = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(histogram))))
    offsets = np.add.reduceat(weights * (histogram.values - anchors[cluster]), starts)
    means: NDArray[np.float64] = anchors + offsets / np.add.reduceat(weights, starts)
    return means.astype(np.float32)


def nearest(codebook: NDArray[np.float32], values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the rank of the centroid nearest to each value.

    Parameters
    ----------
    codebook : float32 array, `[k]`
        The centroids, strictly ascending.
    values : float64 array, `[n]`
        The values to look up.

    Returns
    -------
    uint8 array, `[n]`
        Ranks; of two centroids at the same distance, the smaller one.
    """
    centroids = codebook.astype(np.float64)
    return np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values).astype(np.uint8)
