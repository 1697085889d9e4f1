"""Edits that break the order of the centroids: the same values, at other ranks."""

from __future__ import annotations

import numpy as np

from isotone.errors import InputError
from isotone.study.comparison import spearman
from isotone.study.edits.kind import Codebook, Counts, EditKind, entering

KINDS: dict[str, EditKind] = {}
"""The edits of this module by name."""


@entering(KINDS, "values")
def permute(codebook: Codebook, counts: Counts, rng: np.random.Generator) -> Codebook:
    """Return the centroids in a random order.

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
    return rng.permutation(codebook)


@entering(KINDS, "values")
def permute_window(
    codebook: Codebook, counts: Counts, rng: np.random.Generator, *, width: int = 4
) -> Codebook:
    """Permute the centroids within each run of `width` ranks.

    The first run may be shorter: where the runs begin is drawn too.

    Parameters
    ----------
    codebook : float64 array, `[k]`
        The centroids, ascending.
    counts : int64 array, `[k]`
        The number of weights at each centroid, at least 1.
    rng : numpy.random.Generator
        The generator that the edit draws from.
    width : int
        The number of ranks in a run, 1 or more.

    Returns
    -------
    float64 array, `[k]`
        The edited values by rank.

    Raises
    ------
    InputError
        If `width` is less than 1.
    """
    if width < 1:
        raise InputError(f"width is {width}; expected 1 or more")
    borders = np.arange(rng.integers(width), len(codebook), width)
    return np.concatenate([rng.permutation(part) for part in np.split(codebook, borders)])


@entering(KINDS, "values")
def swap_neighbours(
    codebook: Codebook, counts: Counts, rng: np.random.Generator, *, share: float = 1.0
) -> Codebook:
    """Exchange pairs of adjacent ranks.

    Parameters
    ----------
    codebook : float64 array, `[k]`
        The centroids, ascending.
    counts : int64 array, `[k]`
        The number of weights at each centroid, at least 1.
    rng : numpy.random.Generator
        The generator that the edit draws from.
    share : float
        The fraction of the pairs that are exchanged, of as many as can be at once: 0 to 1.

    Returns
    -------
    float64 array, `[k]`
        The edited values by rank.
    """
    edited, first = codebook.copy(), int(rng.integers(2)) if len(codebook) > 2 else 0
    pairs = np.arange(first, len(codebook) - 1, 2)
    for at in rng.choice(pairs, round(share * len(pairs)), replace=False):
        edited[[at, at + 1]] = edited[[at + 1, at]]
    return edited


@entering(KINDS, "values")
def transpose(
    codebook: Codebook, counts: Counts, rng: np.random.Generator, *, n: int = 1
) -> Codebook:
    """Exchange two ranks drawn at random, `n` times.

    Parameters
    ----------
    codebook : float64 array, `[k]`
        The centroids, ascending.
    counts : int64 array, `[k]`
        The number of weights at each centroid, at least 1.
    rng : numpy.random.Generator
        The generator that the edit draws from.
    n : int
        The number of exchanges.

    Returns
    -------
    float64 array, `[k]`
        The edited values by rank.
    """
    edited = codebook.copy()
    for _ in range(n if len(codebook) > 1 else 0):
        pair = rng.choice(len(codebook), 2, replace=False)
        edited[pair] = edited[pair[::-1]]
    return edited


@entering(KINDS, "values")
def to_spearman(
    codebook: Codebook, counts: Counts, rng: np.random.Generator, *, rho: float = 0.0
) -> Codebook:
    """Exchange ranks until Spearman's rho is about `rho`.

    Each exchange brings rho nearer. Below 0 the search begins with the reversed order.

    Parameters
    ----------
    codebook : float64 array, `[k]`
        The centroids, ascending.
    counts : int64 array, `[k]`
        The number of weights at each centroid, at least 1.
    rng : numpy.random.Generator
        The generator that the edit draws from.
    rho : float
        The rank correlation to reach: 1 is the order as it was, -1 is the reversed order.

    Returns
    -------
    float64 array, `[k]`
        The edited values by rank.

    Raises
    ------
    InputError
        If `rho` is not from -1 to 1.

    Notes
    -----
    The cost is 64 k evaluations of Spearman's rho, each O(k log k).
    """
    if not -1 <= rho <= 1:
        raise InputError(f"rho is {rho}; expected -1 to 1")
    edited = codebook.copy() if rho >= 0 else codebook[::-1].copy()
    found = spearman(codebook, edited)
    for _ in range(64 * len(codebook)):
        pair = rng.integers(len(codebook), size=2)
        candidate = edited.copy()
        candidate[pair] = edited[pair[::-1]]
        reached = spearman(codebook, candidate)
        if abs(reached - rho) < abs(found - rho):
            edited, found = candidate, reached
    return edited


@entering(KINDS, "values", drawn=False)
def reverse(codebook: Codebook, counts: Counts, rng: np.random.Generator) -> Codebook:
    """Return the centroids in descending order.

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
    return codebook[::-1].copy()
