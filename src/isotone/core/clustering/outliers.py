"""Which few weights are protected: outliers that are stored exactly, since no centroid serves them.

At mean squared error D a further bit for every weight would take D to D/4, so one more bit buys
2 ln 2 D of squared error (the slope of D(R) = c * 4^-R). Storing a weight exactly costs some
BITS, 32 for a 16-bit format. It pays where the squared error of the weight is above
2 ln 2 * BITS * D, that is, where its error is above about 6.7 sqrt(D). Without the protected
weights the codebook moves closer to the rest, D falls, and more weights may qualify; after a few
rounds the choice stays.

The error of a weight depends on nothing but its value, so all of this happens on the histogram.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isotone.core.clustering.solver import Clustering, nearest, solve
from isotone.core.histogram import Histogram, coarsen
from isotone.core.rate import MatrixRate
from isotone.errors import InputError

_ROUNDS = 8
_COARSE = 16  # bins for each centroid in the first, coarse histogram
_FINE = 1 << 12  # bins in the second, finer one
_CONVERGED = 5e-5  # rounds end when no more than this share of the weights changes sides


@dataclass(frozen=True)
class Protection:
    """A rule that says which weights are protected.

    Attributes
    ----------
    fraction : float, optional
        The fraction of the weights to protect, those with the largest errors; 0 for none. None
        for `auto`: as many as pay for their bits.

    Examples
    --------
    >>> Protection.parse("off")
    Protection(fraction=0.0)
    >>> str(Protection())
    'auto'
    """

    fraction: float | None = None

    @classmethod
    def parse(cls, text: str) -> Protection:
        """Return the rule that a text stands for.

        Parameters
        ----------
        text : str
            `auto`, `off`, or a number from 0 to 0.05.

        Returns
        -------
        Protection
            The rule.

        Raises
        ------
        InputError
            If the text is none of these.
        """
        if text == "auto":
            return cls()
        if text == "off":
            return cls(0.0)
        try:
            fraction = float(text)
        except (TypeError, ValueError):
            fraction = math.nan
        if not 0.0 <= fraction <= 0.05:
            raise InputError(
                f"protect is {text!r}; expected auto, off, or a fraction from 0 to 0.05 "
                "of the weights"
            )
        return cls(fraction)

    def __str__(self) -> str:
        if self.fraction is None:
            return "auto"
        return str(self.fraction) if self.fraction else "off"


def solve_protected(
    histogram: Histogram, k: int, rule: Protection, rate: MatrixRate
) -> tuple[Clustering, NDArray[np.bool_]]:
    """Cluster what a rule leaves over, and say what it protects.

    Parameters
    ----------
    histogram : Histogram
        The weights.
    k : int
        The number of centroids, 2 to 256.
    rule : Protection
        Which weights are protected.
    rate : MatrixRate
        What a protected weight costs.

    Returns
    -------
    clustering : Clustering
        The best clusters of the bins that are not protected.
    protected : bool array, `[n]`
        Which bins are.

    Notes
    -----
    The cost is a few times that of `solve` for up to some ten thousand bins, as all 16-bit formats
    have, and not much more than it for many: the choice is made on coarser histograms first, and
    the limit on the error that is found there is then applied to the bins themselves.
    """
    if rule.fraction == 0.0 or len(histogram) <= k:
        return solve(histogram, k), np.zeros(len(histogram), np.bool_)
    level = coarsen(histogram, _COARSE * k)
    chosen = np.zeros(len(level), np.bool_)
    clustering, chosen, limit = _alternate(level, chosen, k, rule, rate)
    if level is not histogram:
        level = coarsen(histogram, _FINE)
        chosen = _squared_errors(level, clustering.codebook) > limit
        clustering, chosen, limit = _alternate(level, chosen, k, rule, rate)
    if level is not histogram:
        errors = _squared_errors(histogram, clustering.codebook)
        if rule.fraction is not None:
            limit = _limit(histogram, errors, errors > limit, rule, rate)
        chosen = errors > limit
        clustering = solve(histogram.where(~chosen), k)
    return clustering, chosen


def _alternate(
    histogram: Histogram, chosen: NDArray[np.bool_], k: int, rule: Protection, rate: MatrixRate
) -> tuple[Clustering, NDArray[np.bool_], float]:
    """Cluster and choose in turn, until the choice stays or nearly does.

    The function returns the clustering, the choice, and the squared error above which a weight is
    chosen. A fraction is a promise, which the latest choice keeps. With `auto`, the weights are
    protected without which the codebook was made.
    """
    for _ in range(_ROUNDS):
        clustering = solve(histogram.where(~chosen), k)
        errors = _squared_errors(histogram, clustering.codebook)
        limit = _limit(histogram, errors, chosen, rule, rate)
        previous, chosen = chosen, errors > limit
        n_changed = int(histogram.counts[chosen != previous].sum())
        if n_changed <= _CONVERGED * histogram.n_weights:
            break
    return clustering, previous if rule.fraction is None else chosen, limit


def _squared_errors(histogram: Histogram, codebook: NDArray[np.float32]) -> NDArray[np.float64]:
    """The squared error of each bin's mean, `[n]`."""
    distances = histogram.values - codebook[nearest(codebook, histogram.values)]
    return np.square(distances)


def _limit(
    histogram: Histogram,
    errors: NDArray[np.float64],
    chosen: NDArray[np.bool_],
    rule: Protection,
    rate: MatrixRate,
) -> float:
    """The squared error above which a weight is protected, given what is protected so far."""
    if rule.fraction is None:
        clustered = ~chosen
        distortion = (histogram.counts * errors + histogram.within)[clustered].sum()
        mean = float(distortion) / int(histogram.counts[clustered].sum())
        return 2.0 * math.log(2.0) * rate.protected_bits * mean
    order = np.argsort(-errors, kind="stable")
    affordable = np.cumsum(histogram.counts[order]) <= rule.fraction * histogram.n_weights
    n_affordable = int(affordable.sum())
    return float(errors[order[min(n_affordable, len(order) - 1)]])
