"""Small weighted histograms, and the cost of any clustering of them by brute force."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import numpy as np

from isotone.core.histogram import Histogram, order_keys


def arrays_of(table):
    """Values and counts in float64 from {value: count}."""
    values = np.array(sorted(table), np.float64)
    return values, np.array([table[value] for value in sorted(table)], np.float64)


def histogram_of(table):
    """A histogram of single values from {value: count}."""
    values, counts = arrays_of(table)
    return Histogram.exact(order_keys(values.astype(np.float32)), values, counts.astype(np.int64))


def cost_of_run(values, counts, total, bit, centroid):
    """Squared error about the mean, the ranks of a cluster, and its centroid."""
    mean = (values * counts).sum() / counts.sum()
    error = (counts * (values - mean) ** 2).sum()
    return error + bit * counts.sum() * math.log2(total / counts.sum()) + centroid


def cost_of_labels(values, counts, labels, costs):
    """The cost of a partition; costs: of a bit, a centroid, and a protected weight."""
    bit, centroid, exact = costs
    total = counts.sum()
    runs = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    cost = sum(cost_of_run(values[r], counts[r], total, bit, centroid) for r in runs)
    lost = counts[labels < 0].sum()
    return cost + (exact * lost if lost else 0.0)


def brute_force(values, counts, costs):
    """The least cost of any choice of protected values and any cut of the others into runs."""
    bit, centroid, exact = costs
    n, total, known = len(values), counts.sum(), {}

    def run(members):
        if members not in known:
            at = list(members)
            known[members] = cost_of_run(values[at], counts[at], total, bit, centroid)
        return known[members]

    best = math.inf
    for n_kept in range(n + 1) if math.isfinite(exact) else [n]:
        for kept in combinations(range(n), n_kept):
            lost = total - counts[list(kept)].sum()
            protected = exact * lost if lost else 0.0
            for n_cuts in range(max(n_kept, 1)):
                for cuts in combinations(range(1, n_kept), n_cuts):
                    borders = [0, *cuts, n_kept]
                    runs = [kept[a:b] for a, b in pairwise(borders) if b > a]
                    best = min(best, protected + sum(run(members) for members in runs))
    return best
