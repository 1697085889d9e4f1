"""The k values with the least squared error: k-means, with some weights protected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isotone.core.clustering.method import Assigned, MethodSettings, Split, register_method
from isotone.core.clustering.outliers import Protection, solve_protected
from isotone.core.clustering.solver import nearest
from isotone.core.histogram import Histogram
from isotone.core.rate import MatrixRate

_REFINEMENTS = 4


@dataclass(frozen=True)
class KMeansMethod:
    """Clusters a histogram optimally for its squared error, some weights protected by a rule.

    Attributes
    ----------
    k : int
        The number of centroids, 2 to 256.
    protection : Protection
        The rule for protected weights.
    """

    k: int
    protection: Protection

    def assign(
        self,
        histogram: Histogram,
        rate: MatrixRate,
        unit: float | None = None,  # noqa: ARG002 (k-means asks for no λ)
        split: Split | None = None,
    ) -> Assigned:
        """Cluster a histogram; bins in which a border falls are split, if `split` is given.

        Parameters
        ----------
        histogram, rate, unit, split
            See `Method.assign`; `unit` has no effect.

        Returns
        -------
        Assigned
            Each bin with the rank of the nearest centroid.
        """
        clustering, chosen = solve_protected(histogram, self.k, self.protection, rate)
        for _ in range(_REFINEMENTS):
            if split is None or not histogram.widths.any():
                break
            borders = (clustering.codebook[1:].astype(np.float64) + clustering.codebook[:-1]) / 2
            finer = split(histogram, borders)
            if finer is histogram:
                break
            histogram = finer
            clustering, chosen = solve_protected(histogram, self.k, self.protection, rate)
        ranks = nearest(clustering.codebook, histogram.values)
        return Assigned(histogram, clustering.codebook, ranks, chosen)


@register_method("kmeans")
def kmeans(settings: MethodSettings) -> KMeansMethod:
    """Return k-means with as many centroids as the settings ask for.

    Parameters
    ----------
    settings : MethodSettings
        Its λ has no effect.

    Returns
    -------
    KMeansMethod
        The method.
    """
    return KMeansMethod(settings.k, settings.protection)
