"""Everything that is decided about one matrix before its weights are given their ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isotone.core.float_format import FloatFormat
from isotone.core.labels import Labeller, labeller
from isotone.core.points import Chunks, Points, collect, optimality_gap, refine
from isotone.core.protection import Protection, solve_protected
from isotone.core.solver import nearest

_REFINEMENTS = 4


@dataclass(frozen=True)
class Fit:
    """A clustered matrix, short of the assignments.

    codebook: [k'] float32 strictly ascending, k' <= k.
    labeller: gives weights their ranks.
    counts: [k'] int64, weights at each centroid, protected ones included.
    n_weights, n_protected, mean, standard_deviation: of the weights.
    distortion: sum of squared errors of the *restored* weights, that is after centroids were
        rounded to the matrix's own format.
    squares_about_mean: what distortion is relative to.
    optimality_gap: bound on how much the best codebook could lower the distortion; 0 is exact.
    """

    codebook: NDArray[np.float32]
    labeller: Labeller
    counts: NDArray[np.int64]
    n_weights: int
    n_protected: int
    mean: float
    standard_deviation: float
    distortion: float
    squares_about_mean: float
    optimality_gap: float


def fit(
    chunks: Chunks, float_format: FloatFormat, k: int, protection: Protection, name: str
) -> Fit:
    """Choose codebook and protected weights for one matrix.

    Memory does not depend on the matrix. Raises InputError as `points.collect` does.
    """
    value_bits = 8 * float_format.itemsize
    points = collect(chunks, float_format, name)
    clustering, chosen = solve_protected(points, k, protection, value_bits)
    for _ in range(_REFINEMENTS if points.widths.any() else 0):
        borders = (clustering.codebook[1:].astype(np.float64) + clustering.codebook[:-1]) / 2
        refined = refine(points, chunks, borders)
        if refined is points:
            break
        points = refined
        clustering, chosen = solve_protected(points, k, protection, value_bits)
    return _describe(points, clustering.codebook, chosen, float_format)


def _describe(
    points: Points,
    codebook: NDArray[np.float32],
    chosen: NDArray[np.bool_],
    float_format: FloatFormat,
) -> Fit:
    ranks = nearest(codebook, points.values)
    counts = np.zeros(len(codebook), np.int64)
    np.add.at(counts, ranks, points.counts)
    restored = float_format.widen(float_format.narrow(codebook)).astype(np.float64)[ranks]
    clustered = ~chosen
    errors = points.counts * (points.values - restored) ** 2 + points.within
    squares = points.squares_about_mean
    return Fit(
        codebook=codebook,
        labeller=labeller(points, ranks, chosen, float_format),
        counts=counts,
        n_weights=points.n_weights,
        n_protected=int(points.counts[chosen].sum()),
        mean=points.mean,
        standard_deviation=float(np.sqrt(squares / points.n_weights)),
        distortion=float(errors[clustered].sum()),
        squares_about_mean=squares,
        optimality_gap=optimality_gap(points.where(clustered)),
    )
