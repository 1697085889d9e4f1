"""Controls: edits whose damage has other causes than a lost order."""

from __future__ import annotations

import numpy as np

from isotone.study.edits.kind import Codebook, Counts, EditKind, entering

KINDS: dict[str, EditKind] = {}
"""The edits of this module by name."""


@entering(KINDS, "values", "signs")
def permute_within_sign(codebook: Codebook, counts: Counts, rng: np.random.Generator) -> Codebook:
    """Permute the negative centroids among themselves, and the positive ones.

    Magnitudes are scrambled while signs stay.

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
    edited = codebook.copy()
    for side in (codebook < 0, codebook > 0):
        edited[side] = rng.permutation(codebook[side])
    return edited


@entering(KINDS)
def flip_signs(
    codebook: Codebook, counts: Counts, rng: np.random.Generator, *, share: float = 0.5
) -> Codebook:
    """Change the sign of some centroids, and keep their magnitude.

    Parameters
    ----------
    codebook : float64 array, `[k]`
        The centroids, ascending.
    counts : int64 array, `[k]`
        The number of weights at each centroid, at least 1.
    rng : numpy.random.Generator
        The generator that the edit draws from.
    share : float
        The fraction of the centroids whose sign changes, 0 to 1.

    Returns
    -------
    float64 array, `[k]`
        The edited values by rank.
    """
    flipped = rng.choice(len(codebook), round(share * len(codebook)), replace=False)
    signs = np.ones(len(codebook))
    signs[flipped] = -1.0
    return codebook * signs


@entering(KINDS)
def gaussian_noise(
    codebook: Codebook, counts: Counts, rng: np.random.Generator, *, strength: float = 0.1
) -> Codebook:
    """Add a normal draw to each centroid.

    Parameters
    ----------
    codebook : float64 array, `[k]`
        The centroids, ascending.
    counts : int64 array, `[k]`
        The number of weights at each centroid, at least 1.
    rng : numpy.random.Generator
        The generator that the edit draws from.
    strength : float
        The standard deviation of the noise, in standard deviations of the weights.

    Returns
    -------
    float64 array, `[k]`
        The edited values by rank.
    """
    share = counts / counts.sum()
    deviation = np.sqrt((share * (codebook - (share * codebook).sum()) ** 2).sum())
    edited = codebook.copy()
    edited += strength * deviation * rng.standard_normal(len(codebook))
    return edited
