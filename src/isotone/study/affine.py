"""What undoes the drift of an edited codebook: w' = a * w + b, with a > 0, so the order stays.

Each correction is a function `(edited, codebook, counts) -> edited`, all [k] float64; moments are
those of the weights, each centroid counting as often as weights have it, and not of the k centroids
(which leaves the model worse by orders of magnitude).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from isotone.study.edits import Codebook, Counts, Edit

Correction = Callable[[Codebook, Codebook, Counts], Codebook]


def none(edited: Codebook, codebook: Codebook, counts: Counts) -> Codebook:
    """Nothing."""
    return edited


def moments(edited: Codebook, codebook: Codebook, counts: Counts) -> Codebook:
    """The weights' mean and standard deviation become what they were."""
    mean, deviation = _moments(codebook, counts)
    mean_now, deviation_now = _moments(edited, counts)
    if deviation_now == 0.0:
        return edited - mean_now + mean
    return (edited - mean_now) * (deviation / deviation_now) + mean


def least_squares(edited: Codebook, codebook: Codebook, counts: Counts) -> Codebook:
    """The nearest to the weights that were: a is the regression's slope.

    Where that is not positive, as for a reversed order, no a > 0 is nearest: the smaller the
    nearer. The order is what is studied, so moments are restored there instead.
    """
    mean, _ = _moments(codebook, counts)
    mean_now, deviation_now = _moments(edited, counts)
    covariance = np.average((edited - mean_now) * (codebook - mean), weights=counts)
    if covariance <= 0.0 or deviation_now == 0.0:
        return moments(edited, codebook, counts)
    return (edited - mean_now) * (covariance / deviation_now**2) + mean


def extent(edited: Codebook, codebook: Codebook, counts: Counts) -> Codebook:
    """The lowest and the highest value become what they were."""
    (low_now, high_now), (low, high) = _ends(edited), _ends(codebook)
    if high_now == low_now:
        return edited - low_now + low
    return (edited - low_now) * ((high - low) / (high_now - low_now)) + low


CORRECTIONS: dict[str, Correction] = {
    "none": none,
    "moments": moments,
    "least-squares": least_squares,
    "range": extent,
}
"""Every correction by name."""


def corrected(edit: Edit, correction: Correction) -> Edit:
    """An edit followed by a correction, as one edit."""

    def both(codebook: Codebook, counts: Counts, rng: np.random.Generator) -> Codebook:
        return correction(edit(codebook, counts, rng), codebook, counts)

    return both


def at_error(edit: Edit, relative_error: float) -> Edit:
    """An edit gone only so far that the weights' relative error is what is asked.

    The new codebook lies on the straight line from the old one through the edited one. An edit that
    keeps the order still does so if it is not taken beyond itself, so take one of a larger error.
    """

    def so_far(codebook: Codebook, counts: Counts, rng: np.random.Generator) -> Codebook:
        change = edit(codebook, counts, rng) - codebook
        size, whole = (np.sqrt(np.average(c**2, weights=counts)) for c in (change, codebook))
        return codebook + change * (relative_error * whole / size if size else 0.0)

    return so_far


def _ends(codebook: Codebook) -> tuple[float, float]:
    return float(codebook.min()), float(codebook.max())


def _moments(codebook: NDArray[np.float64], counts: Counts) -> tuple[float, float]:
    mean = np.average(codebook, weights=counts)
    return float(mean), float(np.sqrt(np.average((codebook - mean) ** 2, weights=counts)))
