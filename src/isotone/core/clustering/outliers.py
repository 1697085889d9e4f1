"""Which few weights are stored exactly, because no centroid serves them.

At mean squared error D a further bit for every weight would take D to D/4, so one more bit buys
2 ln 2 D of squared error (the slope of D(R) = c * 4^-R). Storing a weight exactly costs some
BITS, 32 for a 16-bit format; it pays where its squared error is above 2 ln 2 * BITS * D, that is
where its error is above about 6.7 sqrt(D). Without the protected weights the codebook moves
closer to the rest, D falls, and more weights may qualify: a few rounds settle it.

The error of a weight depends on nothing but its value, so all of this happens on the histogram.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isotone.core.clustering.kmeans import Clustering, nearest, solve
from isotone.core.clustering.method import Assigned, Split
from isotone.core.histogram import Histogram, summarise
from isotone.errors import InputError

GAP_BITS = 16
"""What a protected weight takes on disk beside its value: the gap to the one before it."""

_REFINEMENTS = 4
_ROUNDS = 8
_COARSE = 16  # points for each centroid
_FINE = 1 << 12  # points
_SETTLED = 5e-5  # of the weights: at 32 bits each, under 0.002 bits a weight


@dataclass(frozen=True)
class Protection:
    """A rule: `auto`, `off`, or a fraction of the weights (those with the largest errors)."""

    fraction: float | None = None  # None: auto

    @classmethod
    def parse(cls, text: str) -> Protection:
        """Read `auto`, `off` or a number from 0 to 0.05; raises InputError otherwise."""
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


@dataclass(frozen=True)
class KMeansMethod:
    """The k values with the least squared error, some weights protected by a rule."""

    k: int
    protection: Protection

    def assign(self, points: Histogram, value_bits: int, _n_chunks: int, split: Split) -> Assigned:
        """See Method. Points are split where a border falls, so the result is the optimum's."""
        clustering, chosen = solve_protected(points, self.k, self.protection, value_bits)
        for _ in range(_REFINEMENTS if points.widths.any() else 0):
            borders = (clustering.codebook[1:].astype(np.float64) + clustering.codebook[:-1]) / 2
            finer = split(points, borders)
            if finer is points:
                break
            points = finer
            clustering, chosen = solve_protected(points, self.k, self.protection, value_bits)
        ranks = nearest(clustering.codebook, points.values)
        return Assigned(points, clustering.codebook, ranks, chosen)


def solve_protected(
    points: Histogram, k: int, rule: Protection, value_bits: int
) -> tuple[Clustering, NDArray[np.bool_]]:
    """The best clustering of what a rule leaves over, and which points ([n] bool) it protects.

    value_bits: what the value of a protected weight takes on disk.

    Cost: a few times that of `solve` for up to some ten thousand points (all 16-bit formats), not
    much more than it for many: the choice is settled on summaries of the points, coarse then fine,
    and what a limit on the error found there means is looked up on the points themselves.
    """
    if rule.fraction == 0.0 or len(points) <= k:
        return solve(points, k), np.zeros(len(points), np.bool_)
    level = summarise(points, _COARSE * k)
    chosen = np.zeros(len(level), np.bool_)
    clustering, chosen, limit = _settle(level, chosen, k, rule, value_bits)
    if level is not points:
        level = summarise(points, _FINE)
        chosen = _squared_errors(level, clustering.codebook) > limit
        clustering, chosen, limit = _settle(level, chosen, k, rule, value_bits)
    if level is not points:
        errors = _squared_errors(points, clustering.codebook)
        if rule.fraction is not None:
            limit = _limit(points, errors, errors > limit, rule, value_bits)
        chosen = errors > limit
        clustering = solve(points.where(~chosen), k)
    return clustering, chosen


def _settle(
    points: Histogram, chosen: NDArray[np.bool_], k: int, rule: Protection, value_bits: int
) -> tuple[Clustering, NDArray[np.bool_], float]:
    """Cluster and choose in turn until the choice stays, or has nearly done so.

    Returns the clustering, the choice, and the squared error above which a weight is chosen. A
    fraction is a promise, which the latest choice keeps; with `auto`, what the codebook was made
    without is what is protected.
    """
    for _ in range(_ROUNDS):
        clustering = solve(points.where(~chosen), k)
        errors = _squared_errors(points, clustering.codebook)
        limit = _limit(points, errors, chosen, rule, value_bits)
        previous, chosen = chosen, errors > limit
        n_changed = int(points.counts[chosen != previous].sum())
        if n_changed <= _SETTLED * points.n_weights:
            break
    return clustering, previous if rule.fraction is None else chosen, limit


def _squared_errors(points: Histogram, codebook: NDArray[np.float32]) -> NDArray[np.float64]:
    distances = points.values - codebook[nearest(codebook, points.values)]
    return np.square(distances)


def _limit(
    points: Histogram,
    errors: NDArray[np.float64],
    chosen: NDArray[np.bool_],
    rule: Protection,
    value_bits: int,
) -> float:
    """The squared error above which a weight is protected, given what is protected so far."""
    if rule.fraction is None:
        clustered = ~chosen
        distortion = (points.counts * errors + points.within)[clustered].sum()
        mean = float(distortion) / int(points.counts[clustered].sum())
        return 2.0 * math.log(2.0) * (GAP_BITS + value_bits) * mean
    order = np.argsort(-errors, kind="stable")
    affordable = np.cumsum(points.counts[order]) <= rule.fraction * points.n_weights
    n_affordable = int(affordable.sum())
    return float(errors[order[min(n_affordable, len(order) - 1)]])
