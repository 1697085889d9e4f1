"""Edits that keep the order of the centroids and change their values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isotone.errors import InputError
from isotone.study.edits.kind import Codebook, Counts, EditKind, entering

KINDS: dict[str, EditKind] = {}
"""The edits of this module by name."""


@entering(KINDS, "order")
def sorted_normal(codebook: Codebook, counts: Counts, rng: np.random.Generator) -> Codebook:
    """Return draws from the standard normal distribution, sorted.

    Parameters
    ----------
    codebook : float64 array, `[k]`
        The centroids, ascending.
    counts : int64 array, `[k]`
        The number of weights at each centroid, at least 1.
    rng : numpy.random.Generator
        The generator that the edit draws from.

    Returns
    -------
    float64 array, `[k]`
        The edited values by rank.
    """
    return np.sort(rng.standard_normal(len(codebook)))


@entering(KINDS, "order")
def sorted_uniform(codebook: Codebook, counts: Counts, rng: np.random.Generator) -> Codebook:
    """Return draws from the uniform distribution on [-1, 1], sorted.

    Parameters
    ----------
    codebook : float64 array, `[k]`
        The centroids, ascending.
    counts : int64 array, `[k]`
        The number of weights at each centroid, at least 1.
    rng : numpy.random.Generator
        The generator that the edit draws from.

    Returns
    -------
    float64 array, `[k]`
        The edited values by rank.
    """
    return np.sort(rng.uniform(-1.0, 1.0, len(codebook)))


@entering(KINDS, "order")
def sorted_empirical(codebook: Codebook, counts: Counts, rng: np.random.Generator) -> Codebook:
    """Return draws from the weights' own distribution, sorted.

    The distribution is interpolated linearly between the centroids.

    Parameters
    ----------
    codebook : float64 array, `[k]`
        The centroids, ascending.
    counts : int64 array, `[k]`
        The number of weights at each centroid, at least 1.
    rng : numpy.random.Generator
        The generator that the edit draws from.

    Returns
    -------
    float64 array, `[k]`
        The edited values by rank.
    """
    return _quantiles(codebook, counts, np.sort(rng.uniform(size=len(codebook))))


@entering(KINDS, "order", drawn=False)
def even_spacing(codebook: Codebook, counts: Counts, rng: np.random.Generator) -> Codebook:
    """Return values in equal steps over the codebook's range.

    Parameters
    ----------
    codebook : float64 array, `[k]`
        The centroids, ascending.
    counts : int64 array, `[k]`
        The number of weights at each centroid, at least 1.
    rng : numpy.random.Generator
        Unused: this edit draws nothing.

    Returns
    -------
    float64 array, `[k]`
        The edited values by rank.
    """
    return np.linspace(codebook[0], codebook[-1], len(codebook))


@entering(KINDS, "order")
def jittered_gaps(
    codebook: Codebook, counts: Counts, rng: np.random.Generator, *, strength: float = 0.5
) -> Codebook:
    """Multiply each spacing of adjacent centroids by a log-normal draw.

    Parameters
    ----------
    codebook : float64 array, `[k]`
        The centroids, ascending.
    counts : int64 array, `[k]`
        The number of weights at each centroid, at least 1.
    rng : numpy.random.Generator
        The generator that the edit draws from.
    strength : float
        The standard deviation of the logarithm of the multipliers.

    Returns
    -------
    float64 array, `[k]`
        The edited values by rank; the lowest centroid stays.
    """
    multipliers = np.exp(strength * rng.standard_normal(len(codebook) - 1))
    edited = codebook.copy()
    edited[1:] = codebook[0] + np.cumsum(np.diff(codebook) * multipliers)
    return edited


@entering(KINDS, "order", "signs", drawn=False)
def power_warp(
    codebook: Codebook, counts: Counts, rng: np.random.Generator, *, exponent: float = 2.0
) -> Codebook:
    """Raise the magnitudes to a power; the largest magnitude stays.

    The result is `sign(c) * largest * abs(c / largest) ** exponent`.

    Parameters
    ----------
    codebook : float64 array, `[k]`
        The centroids, ascending.
    counts : int64 array, `[k]`
        The number of weights at each centroid, at least 1.
    rng : numpy.random.Generator
        Unused: this edit draws nothing.
    exponent : float
        The power, more than 0.

    Returns
    -------
    float64 array, `[k]`
        The edited values by rank.

    Raises
    ------
    InputError
        If `exponent` is not more than 0.
    """
    if not exponent > 0:
        raise InputError(f"exponent is {exponent}; expected more than 0")
    largest = np.abs(codebook).max() or 1.0
    return np.sign(codebook) * largest * np.abs(codebook / largest) ** exponent


@entering(KINDS, "order", "signs", drawn=False)
def tanh_warp(
    codebook: Codebook, counts: Counts, rng: np.random.Generator, *, strength: float = 1.0
) -> Codebook:
    """Push the outer centroids together by a hyperbolic tangent.

    The result is `largest * tanh(strength * c / largest)`.

    Parameters
    ----------
    codebook : float64 array, `[k]`
        The centroids, ascending.
    counts : int64 array, `[k]`
        The number of weights at each centroid, at least 1.
    rng : numpy.random.Generator
        Unused: this edit draws nothing.
    strength : float
        How strongly they are pushed together: more than 0, and at most 8.

    Returns
    -------
    float64 array, `[k]`
        The edited values by rank.

    Raises
    ------
    InputError
        If `strength` is out of its range.
    """
    if not 0 < strength <= 8:
        raise InputError(f"strength is {strength}; expected more than 0, and at most 8")
    largest = np.abs(codebook).max() or 1.0
    return largest * np.tanh(strength * codebook / largest)


@entering(KINDS, "order", drawn=False)
def quantile_match(
    codebook: Codebook,
    counts: Counts,
    rng: np.random.Generator,
    *,
    other: Codebook,
    other_counts: Counts,
) -> Codebook:
    """Return the values of another matrix at the quantiles of each centroid.

    Parameters
    ----------
    codebook : float64 array, `[k]`
        The centroids, ascending.
    counts : int64 array, `[k]`
        The number of weights at each centroid, at least 1.
    rng : numpy.random.Generator
        Unused: this edit draws nothing.
    other : float64 array, `[n]`
        The centroids of the other matrix, ascending.
    other_counts : int64 array, `[n]`
        The number of the other matrix's weights at each of its centroids.

    Returns
    -------
    float64 array, `[k]`
        The edited values by rank.
    """
    return _quantiles(other, other_counts, _middles(counts))


def _middles(counts: Counts) -> NDArray[np.float64]:
    """Return the quantile at the middle of each rank's weights, `[k]`."""
    middles: NDArray[np.float64] = (np.cumsum(counts) - 0.5 * counts) / counts.sum()
    return middles


def _quantiles(
    codebook: Codebook, counts: Counts, quantiles: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the weights' distribution at quantiles, interpolated linearly between centroids.

    Beyond the outermost centroids it continues with the slope between the last two, so that no two
    quantiles get the same value.
    """
    positions = _middles(counts)
    if len(codebook) == 1:
        return np.full(len(quantiles), codebook[0])
    inside = np.interp(quantiles, positions, codebook)
    for end, inner in ((0, 1), (-1, -2)):
        slope = (codebook[end] - codebook[inner]) / (positions[end] - positions[inner])
        beyond = quantiles < positions[0] if end == 0 else quantiles > positions[-1]
        inside[beyond] = codebook[end] + slope * (quantiles[beyond] - positions[end])
    return inside
