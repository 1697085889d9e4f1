"""How far an edited codebook is from what it was: in order, and in the weights it stands for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """An edited codebook beside its original.

    spearman, kendall: rank correlations over the centroids, 1 for the same order, -1 for reversed.
    relative_error: the weights' squared difference over their squares, its root. cosine: of the two
    weight matrices. mean_shift: of the weights' mean, in their standard deviations. scale: of their
    standard deviations, new by old. All but the first two count each centroid as often as weights
    have it.
    """

    spearman: float
    kendall: float
    relative_error: float
    cosine: float
    mean_shift: float
    scale: float


def compare_codebooks(codebook: Array, edited: Array, counts: NDArray[np.int64]) -> Comparison:
    """Compare [k] with [k], each centroid counting as many weights as it has."""
    share = counts / counts.sum()
    mean, deviation = _moments(codebook, share)
    mean_after, deviation_after = _moments(edited, share)
    squares, squares_after = (float((share * c**2).sum()) for c in (codebook, edited))
    product = np.sqrt(squares * squares_after)
    return Comparison(
        spearman=spearman(codebook, edited),
        kendall=kendall(codebook, edited),
        relative_error=_ratio(np.sqrt((share * (edited - codebook) ** 2).sum()), np.sqrt(squares)),
        cosine=_ratio(float((share * codebook * edited).sum()), product),
        mean_shift=_ratio(mean_after - mean, deviation),
        scale=_ratio(deviation_after, deviation),
    )


def spearman(codebook: Array, edited: Array) -> float:
    """Pearson's correlation of the ranks; 1 where there is but one centroid."""
    ranks, ranks_after = (np.argsort(np.argsort(c)).astype(np.float64) for c in (codebook, edited))
    if len(codebook) < 2:
        return 1.0
    return float(np.corrcoef(ranks, ranks_after)[0, 1])


def kendall(codebook: Array, edited: Array) -> float:
    """Pairs in the same order less those in the other, over all pairs (tau-a)."""
    above = np.triu_indices(len(codebook), 1)
    if not len(above[0]):
        return 1.0
    signs = [np.sign(c[above[1]] - c[above[0]]) for c in (codebook, edited)]
    return float((signs[0] * signs[1]).mean())


def _moments(codebook: Array, share: Array) -> tuple[float, float]:
    mean = float((share * codebook).sum())
    return mean, float(np.sqrt((share * (codebook - mean) ** 2).sum()))


def _ratio(value: float, unit: float) -> float:
    """In some unit; where that is 0, 0 of nothing and infinity of something."""
    if unit:
        return float(value / unit)
    return float(np.inf) if value else 0.0
