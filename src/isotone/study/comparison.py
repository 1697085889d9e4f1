"""How far an edited codebook is from the original: in order, and in the weights it stands for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CodebookComparison:
    """How an edited codebook compares with the original.

    The last four measures count each centroid as often as weights have it.

    Attributes
    ----------
    spearman, kendall : float
        The rank correlations over the centroids: 1 for the same order, -1 for the reversed order.
    relative_error : float
        The root of the weights' squared change over their squares.
    cosine : float
        The cosine between the two weight matrices.
    mean_shift : float
        The change of the weights' mean, in their standard deviations before the edit.
    scale : float
        The weights' standard deviation after the edit over that before.
    """

    spearman: float
    kendall: float
    relative_error: float
    cosine: float
    mean_shift: float
    scale: float


def compare_codebooks(
    codebook: Array, edited: Array, counts: NDArray[np.int64]
) -> CodebookComparison:
    """Compare an edited codebook with the original.

    Parameters
    ----------
    codebook : float64 array, `[k]`
        The centroids before the edit.
    edited : float64 array, `[k]`
        The values of the same ranks after the edit.
    counts : int64 array, `[k]`
        The number of weights at each centroid.

    Returns
    -------
    CodebookComparison
        Rank correlations, relative error, cosine, and the drift of mean and scale.

    Examples
    --------
    >>> import numpy as np
    >>> before, after = np.array([-1.0, 0.0, 2.0]), np.array([-1.0, 2.0, 0.0])
    >>> round(compare_codebooks(before, after, np.array([2, 1, 1])).spearman, 3)
    0.5
    """
    share = counts / counts.sum()
    mean, deviation = _moments(codebook, share)
    mean_after, deviation_after = _moments(edited, share)
    squares, squares_after = (float((share * c**2).sum()) for c in (codebook, edited))
    product = np.sqrt(squares * squares_after)
    return CodebookComparison(
        spearman=spearman(codebook, edited),
        kendall=kendall(codebook, edited),
        relative_error=_ratio(np.sqrt((share * (edited - codebook) ** 2).sum()), np.sqrt(squares)),
        cosine=_ratio(float((share * codebook * edited).sum()), product),
        mean_shift=_ratio(mean_after - mean, deviation),
        scale=_ratio(deviation_after, deviation),
    )


def spearman(codebook: Array, edited: Array) -> float:
    """Return Spearman's rank correlation: Pearson's correlation of the ranks.

    Parameters
    ----------
    codebook, edited : float64 array, `[k]`
        Two codebooks, each of different values.

    Returns
    -------
    float
        From -1 to 1; 1 where there is one centroid only.
    """
    ranks, ranks_after = (np.argsort(np.argsort(c)).astype(np.float64) for c in (codebook, edited))
    if len(codebook) < 2:
        return 1.0
    return float(np.corrcoef(ranks, ranks_after)[0, 1])


def kendall(codebook: Array, edited: Array) -> float:
    """Return Kendall's tau-a: concordant less discordant pairs, over all pairs.

    Parameters
    ----------
    codebook, edited : float64 array, `[k]`
        Two codebooks, each of different values.

    Returns
    -------
    float
        From -1 to 1; 1 where there is one centroid only.

    Notes
    -----
    The cost is quadratic in k.
    """
    above = np.triu_indices(len(codebook), 1)
    if not len(above[0]):
        return 1.0
    signs = [np.sign(c[above[1]] - c[above[0]]) for c in (codebook, edited)]
    return float((signs[0] * signs[1]).mean())


def _moments(codebook: Array, share: Array) -> tuple[float, float]:
    mean = float((share * codebook).sum())
    return mean, float(np.sqrt((share * (codebook - mean) ** 2).sum()))


def _ratio(value: float, unit: float) -> float:
    """Return value over unit; for a unit of 0, 0 if the value is 0 and infinity otherwise."""
    if unit:
        return float(value / unit)
    return float(np.inf) if value else 0.0
