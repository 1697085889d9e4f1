"""Add a method of clustering and compare it: `python examples/quantile_method.py MODEL WORK`."""

import sys
from pathlib import Path

import numpy as np

import isotone


@isotone.register_method("quantiles")
class Quantiles:
    """Clusters with equally many weights: each centroid is the mean of a quantile."""

    def __init__(self, settings: isotone.MethodSettings) -> None:
        self.k = settings.k

    def assign(self, histogram, rate, unit=None, split=None):
        """Return a codebook and the rank of each bin of the histogram; protect no weight."""
        middles = np.cumsum(histogram.counts) - histogram.counts / 2
        quantiles = (middles * self.k / histogram.counts.sum()).astype(np.int64)
        ranks = np.unique(quantiles, return_inverse=True)[1].astype(np.uint8)
        sums = np.bincount(ranks, histogram.counts * histogram.values)
        codebook = (sums / np.bincount(ranks, histogram.counts)).astype(np.float32)
        return isotone.Assigned(histogram, codebook, ranks, np.zeros(len(ranks), np.bool_))


if __name__ == "__main__":
    model, work = map(Path, sys.argv[1:])
    for method in ("quantiles", "kmeans"):
        summary = isotone.compress(model, work / method, k=16, method=method, protect="off")
        print(f"{method}: relative distortion {summary.relative_distortion:.5f}")
