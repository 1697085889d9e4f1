"""Affine corrections w' = a * w + b with a > 0, which undo the drift of an edited codebook.

Since a is positive, a correction keeps the order of the centroids. Moments are those of the
weights, so each centroid counts as often as weights have it. Moments of the k centroids would leave
the model worse by orders of magnitude.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from isotone.study.edits.kind import Codebook, Counts, Edit

_RESOLUTION = 1e-9  # relative, of the distance that an edit is taken

Correction = Callable[[Codebook, Codebook, Counts], Codebook]


def none(edited: Codebook, codebook: Codebook, counts: Counts) -> Codebook:
    """Return the edited codebook as it is.

    Parameters
    ----------
    edited : float64 array, `[k]`
        The edited codebook.
    codebook : float64 array, `[k]`
        The codebook before the edit.
    counts : int64 array, `[k]`
        The number of weights at each centroid.

    Returns
    -------
    float64 array, `[k]`
        The edited codebook.
    """
    return edited


def moments(edited: Codebook, codebook: Codebook, counts: Counts) -> Codebook:
    """Restore the mean and the standard deviation of the weights.

    Parameters
    ----------
    edited : float64 array, `[k]`
        The edited codebook.
    codebook : float64 array, `[k]`
        The codebook before the edit.
    counts : int64 array, `[k]`
        The number of weights at each centroid.

    Returns
    -------
    float64 array, `[k]`
        The corrected codebook.
    """
    mean, deviation = _moments(codebook, counts)
    mean_now, deviation_now = _moments(edited, counts)
    if deviation_now == 0.0:
        return edited - mean_now + mean
    return (edited - mean_now) * (deviation / deviation_now) + mean


def least_squares(edited: Codebook, codebook: Codebook, counts: Counts) -> Codebook:
    """Return the affine image of the edited codebook nearest to the weights before the edit.

    Parameters
    ----------
    edited : float64 array, `[k]`
        The edited codebook.
    codebook : float64 array, `[k]`
        The codebook before the edit.
    counts : int64 array, `[k]`
        The number of weights at each centroid.

    Returns
    -------
    float64 array, `[k]`
        The corrected codebook; its scale a is the slope of the regression.

    Notes
    -----
    Where the slope is not positive, as for a reversed order, there is no nearest image with a > 0:
    the smaller a, the nearer. The order is what a study examines, so the moments are restored there
    instead.
    """
    mean, _ = _moments(codebook, counts)
    mean_now, deviation_now = _moments(edited, counts)
    covariance = np.average((edited - mean_now) * (codebook - mean), weights=counts)
    if covariance <= 0.0 or deviation_now == 0.0:
        return moments(edited, codebook, counts)
    return (edited - mean_now) * (covariance / deviation_now**2) + mean


def extent(edited: Codebook, codebook: Codebook, counts: Counts) -> Codebook:
    """Restore the lowest and the highest value of the codebook.

    Parameters
    ----------
    edited : float64 array, `[k]`
        The edited codebook.
    codebook : float64 array, `[k]`
        The codebook before the edit.
    counts : int64 array, `[k]`
        Unused: the range does not depend on how many weights a centroid has.

    Returns
    -------
    float64 array, `[k]`
        The corrected codebook.
    """
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
    """Return an edit followed by a correction, as one edit.

    Parameters
    ----------
    edit : callable
        The edit, `(codebook, counts, rng) -> edited`.
    correction : callable
        One of `CORRECTIONS`.

    Returns
    -------
    callable
        An edit likewise.
    """

    def both(codebook: Codebook, counts: Counts, rng: np.random.Generator) -> Codebook:
        return correction(edit(codebook, counts, rng), codebook, counts)

    return both


def at_error(edit: Edit, correction: Correction, relative_error: float) -> Edit:
    """Return an edit scaled down until the corrected weights have a given relative error.

    The path leads along the straight line from the old codebook to the edited and corrected one,
    and each point of it is corrected again. It keeps the order if the edit does. Where the edit
    itself has no larger error, the result is the edit itself: choose an edit that has, and look at
    what was reached.

    Parameters
    ----------
    edit : callable
        The edit, `(codebook, counts, rng) -> edited`.
    correction : callable
        One of `CORRECTIONS`.
    relative_error : float
        The root of the weights' squared change over their squares, more than 0.

    Returns
    -------
    callable
        An edit likewise.

    Notes
    -----
    The distance is found by bisection to a relative resolution of 1e-9, about 30 steps of O(k).
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
