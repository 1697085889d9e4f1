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

_RESOLUTION = 1e-9  # of how far an edit goes

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


def at_error(edit: Edit, correction: Correction, relative_error: float) -> Edit:
    """An edit gone only so far that, corrected, the weights' relative error is what is asked.

    The way leads along the straight line from the old codebook to the edited and corrected one, and
    is corrected again wherever it ends. It keeps the order if the edit does. It ends at the edit
    itself where that is of no larger error; so take one that is, and look at what was reached.
    """

    def so_far(codebook: Codebook, counts: Counts, rng: np.random.Generator) -> Codebook:
        change = correction(edit(codebook, counts, rng), codebook, counts) - codebook
        size = np.sqrt(np.average(codebook**2, weights=counts))

        def at(share: float) -> Codebook:
            return correction(codebook + share * change, codebook, counts)

        def exceeds(share: float) -> bool:
            error = np.sqrt(np.average((at(share) - codebook) ** 2, weights=counts))
            return bool(error > relative_error * size)

        if not exceeds(1.0):
            return at(1.0)
        low, high = 0.0, 1.0
        while high - low > _RESOLUTION * high:
            middle = 0.5 * (low + high)
            low, high = (low, middle) if exceeds(middle) else (middle, high)
        return at(low)

    return so_far


def _ends(codebook: Codebook) -> tuple[float, float]:
    return float(codebook.min()), float(codebook.max())


def _moments(codebook: NDArray[np.float64], counts: Counts) -> tuple[float, float]:
    mean = np.average(codebook, weights=counts)
    return float(mean), float(np.sqrt(np.average((codebook - mean) ** 2, weights=counts)))
