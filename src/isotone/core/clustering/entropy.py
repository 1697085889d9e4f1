"""Entropy-constrained clustering: the least squared error plus λ times the bits on disk.

k-means finds the K values with the least error. This method finds the least error for a size in
bytes: the more weights a value has, the shorter its code. For one dimension the best
clusters are runs of the sorted values, and the cost of a run depends on nothing outside of it. So
the cheapest partition into runs, some of them protected weights, is found exactly by dynamic
programming (`_native.partition`), and the number of centroids comes out of it.

That is quadratic in the number of bins, so it is done on a histogram whose bins are merged to a
small part of the distance that neighbouring centroids will have. On all bins, Lloyd iterations then
make centroids and code lengths the best for each other in turn (`_native.lloyd_iterations`), which
never raises the cost.

References
----------
Chou, Lookabaugh and Gray, "Entropy-constrained vector quantization", IEEE Transactions on
Acoustics, Speech, and Signal Processing 37 (1989).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isotone import _native
from isotone.core.clustering.method import Assigned, MethodSettings, Split, register_method
from isotone.core.clustering.solver import centroids
from isotone.core.histogram import Histogram, merge
from isotone.core.rate import PROTECTED_RANK_BITS, MatrixRate
from isotone.errors import InputError

_BINS_A_STEP = 12  # merged bins between neighbouring centroids, if centroids are evenly spaced
_FEWEST_BINS, _MOST_BINS = 1000, 3000
_HALVINGS = 12  # bisection steps for the centroid cost that gives at most max_k centroids
_HIGH_RATE = 2.0 * math.log(2.0) / 12.0  # λ / spacing^2 of the centroids, at small spacings


@dataclass(frozen=True)
class EntropyMethod:
    """Clusters a histogram at a Lagrange multiplier λ.

    Attributes
    ----------
    lambda_ : float
        The squared error of one weight for which one bit is spent, in units of the mean square of
        what is clustered, outliers aside (`Histogram.bulk_mean_square`), or of the `unit` that
        `assign` is given. In the middle range, four times λ takes one bit off each weight.
    max_k : int
        The most centroids, up to 256.
    protect : bool
        Whether weights may be stored exactly where that is cheaper.
    """

    lambda_: float
    max_k: int = 256
    protect: bool = True

    def assign(
        self,
        histogram: Histogram,
        rate: MatrixRate,
        unit: float | None = None,
        split: Split | None = None,  # noqa: ARG002 (bins are narrow beside the distance of centroids)
    ) -> Assigned:
        """Cluster a histogram.

        Parameters
        ----------
        histogram, rate, unit, split
            See `Method.assign`; `split` has no effect.

        Returns
        -------
        Assigned
            For `histogram`.

        Notes
        -----
        The cost is about 2 ms at four bits a weight, plus a few passes over the bins.
        """
        bit = self.lambda_ * (histogram.bulk_mean_square if unit is None else unit)
        if bit == 0.0 or len(histogram) == 1:
            return Assigned.whole(histogram)
        protected_bits = rate.protected_bits + PROTECTED_RANK_BITS
        exact = bit * protected_bits if self.protect else math.inf
        centroid = bit * rate.centroid_bits
        labels = self._labels(histogram, bit, centroid, exact)
        if labels.max() < 0:  # all weights are protected, as so few of them may be at a high λ
            labels = self._labels(histogram, bit, centroid, math.inf)
        protected = labels < 0
        starts = np.flatnonzero(np.diff(labels[~protected], prepend=-1))
        codebook = centroids(histogram.where(~protected), starts)
        return Assigned(histogram, codebook, _filled(labels), protected)

    def _labels(
        self, histogram: Histogram, bit: float, centroid: float, exact: float
    ) -> NDArray[np.int32]:
        """For each bin the number of its cluster, or -1 if it is protected."""
        coarse, run = _coarse(histogram, math.sqrt(bit / _HIGH_RATE) / _BINS_A_STEP)
        found, centroid = self._partition(coarse, bit, centroid, exact)
        labels: NDArray[np.int32] = found[run]
        weights = histogram.counts.astype(np.float64)
        _native.lloyd_iterations(histogram.values, weights, bit, centroid, exact, labels)
        return labels

    def _partition(
        self, histogram: Histogram, bit: float, centroid: float, exact: float
    ) -> tuple[NDArray[np.int32], float]:
        """The cheapest labels with no more than max_k clusters, and the cost of a centroid there.

        If the optimum has more, the cost of a centroid is raised, as little as that needs.
        """
        weights = histogram.counts.astype(np.float64)

        def at(centroid: float) -> NDArray[np.int32]:
            labels = np.empty(len(histogram), np.int32)
            _native.partition(histogram.values, weights, bit, centroid, exact, labels)
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


@register_method("entropy")
def entropy(settings: MethodSettings) -> EntropyMethod:
    """Return entropy-constrained clustering at the λ of the settings.

    Parameters
    ----------
    settings : MethodSettings
        Weights may be protected if its rule is `auto`: a fraction is no question of cost.

    Returns
    -------
    EntropyMethod
        The method.

    Raises
    ------
    InputError
        If the settings have no λ.
    """
    if settings.lambda_ is None:
        raise InputError("the method entropy was given no λ; ask for a size in bits a weight")
    return EntropyMethod(settings.lambda_, settings.k, settings.protection.fraction is None)


def _filled(labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The ranks of all bins; a protected bin has that of the clustered bin before it, or else 0."""
    last = np.maximum.accumulate(np.where(labels < 0, -1, np.arange(len(labels))))
    return np.where(last < 0, 0, labels[last]).astype(np.uint8)


def _coarse(histogram: Histogram, width: float) -> tuple[Histogram, NDArray[np.intp]]:
    """Merge bins within steps of a width; also return for each bin the merged one it went into.

    Nothing is merged if there are few bins.
    """
    if len(histogram) <= _FEWEST_BINS:
        return histogram, np.arange(len(histogram))
    extent = float(histogram.values[-1] - histogram.values[0])
    width = min(width, extent / _FEWEST_BINS)
    while True:
        steps = np.floor((histogram.values - histogram.values[0]) / width)
        starts = np.flatnonzero(np.diff(steps, prepend=-1.0))
        if len(starts) <= _MOST_BINS:
            break
        width *= 1.0 + len(starts) / _MOST_BINS / 2.0
    run = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(histogram))))
    return merge(histogram, starts), run
