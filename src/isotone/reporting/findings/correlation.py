"""Spearman's rank correlation between two measures of many runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return Spearman's rho; tied values get their mean rank.

    Infinity ranks above all numbers, so a collapsed model counts.

    Parameters
    ----------
    x, y : sequence of float, `[n]`
        Two measures of the same runs.

    Returns
    -------
    float or None
        From -1 to 1; None where one of the two does not vary, or for fewer than three runs.

    Examples
    --------
    >>> round(rank_correlation([1, 2, 3, 4], [10, 30, 20, float("inf")]), 3)
    0.8
    """
    ranks = np.stack([_ranks(np.asarray(values, np.float64)) for values in (x, y)])
    if len(x) < 3 or np.ptp(ranks, axis=1).min() == 0.0:
        return None
    x_ranks, y_ranks = ranks - ranks.mean(axis=1, keepdims=True)
    return float(x_ranks @ y_ranks / np.sqrt((x_ranks @ x_ranks) * (y_ranks @ y_ranks)))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    means = np.cumsum(counts) - (counts - 1) / 2
    ranks: NDArray[np.float64] = means[places]
    return ranks
