"""Everything that is decided about one matrix before its weights are given their ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from isotone.core.clustering.entropy import EntropyMethod
from isotone.core.clustering.lookup import LookupTable, lookup_table
from isotone.core.clustering.method import Assigned, Method
from isotone.core.float_format import Bits, FloatFormat
from isotone.core.histogram import Histogram, collect, optimality_gap, refine, refuse_not_finite
from isotone.core.moments import Moments, moments_of
from isotone.core.scales.balancing import LARGEST_KEY, Rows, ScaleRule, Scales, choose_scales
from isotone.core.values import Values


@dataclass(frozen=True)
class Matrix:
    """A matrix that can be read as often as needed.

    rows: reads it in pieces of whole rows. shape: rows and columns. name: for messages.
    n_chunks: in how many its ranks will be coded.
    """

    rows: Rows
    shape: tuple[int, int]
    float_format: FloatFormat
    name: str
    n_chunks: int = 1


@dataclass(frozen=True)
class MatrixSummary:
    """A matrix in short: factors, moments, and the distinct values of what is to be clustered.

    unit: the squared error of those values that does damage 1; None where nobody knows.
    """

    scales: Scales | None
    moments: Moments
    points: Histogram
    unit: float | None = None

    @property
    def n_bytes(self) -> int:
        """The memory it takes, nearly."""
        points = self.points
        return 3 * points.values.nbytes + points.keys.nbytes + points.counts.nbytes


@dataclass(frozen=True)
class Fit:
    """A clustered matrix, short of the assignments.

    codebook: [k'] float32 strictly ascending, k' at most what was asked for.
    scales: its factors, if any.
    labeller: gives ranks to weights, or to their keys where there are scales.
    counts: [k'] int64, weights at each centroid, protected ones included.
    n_protected: of them. moments: of the weights.
    optimality_gap: bound on how much the best codebook could lower the squared error of what is
        clustered (the weights, or the keys where there are scales); 0 is exact.
    """

    codebook: NDArray[np.float32]
    scales: Scales | None
    lookup_table: LookupTable
    counts: NDArray[np.int64]
    n_protected: int
    moments: Moments
    optimality_gap: float

    @property
    def row_scale(self) -> NDArray[np.uint8] | None:
        """[rows] codes of the rows' factors, or None."""
        return None if self.scales is None else self.scales.row

    @property
    def column_scale(self) -> NDArray[np.uint8] | None:
        """[columns] codes of the columns' factors, or None."""
        return None if self.scales is None else self.scales.column

    def values(
        self,
        shape: tuple[int, int],
        float_format: FloatFormat,
        positions: NDArray[np.int64],
        protected: Bits,
    ) -> Values:
        """The values of the matrix.

        positions: [n], of protected weights. protected: [n] patterns, those weights.
        """
        return Values(
            shape,
            float_format,
            self.codebook,
            self.row_scale,
            self.column_scale,
            positions,
            protected,
        )

    def assign(
        self, bits: Bits, position: int, float_format: FloatFormat, ranks: NDArray[np.uint8]
    ) -> NDArray[np.int64]:
        """Write the ranks of a run of weights ([n] -> [n]); return the places of protected ones.

        position: of the first of them in the matrix.
        """
        if self.scales is None:
            return self.lookup_table.assign(bits, ranks)
        return self.lookup_table.assign(self.scales.divider(float_format)(bits, position), ranks)


def count(matrix: Matrix, rule: ScaleRule) -> MatrixSummary:
    """Choose the factors of a matrix, and count what is left.

    Raises InputError, naming the tensor, for NaN and infinity, and for a matrix without weights.
    Memory does not depend on the matrix, its longest row aside.
    """
    if rule is ScaleRule.NONE:
        return _count_unscaled(matrix)
    moments = moments_of(matrix.rows, matrix.float_format)
    if not math.isfinite(moments.squares_about_mean):
        wide = (matrix.float_format.upcast(piece) for piece in matrix.rows())
        refuse_not_finite(sum(int((~np.isfinite(piece)).sum()) for piece in wide), matrix.name)
    scales = choose_scales(matrix.rows, matrix.shape, matrix.float_format, rule)
    if scales is None:
        return _count_unscaled(matrix)
    keys = scales.divided(matrix.rows, matrix.float_format)
    return MatrixSummary(scales, moments, collect(keys, FloatFormat.F16, matrix.name))


def fit(matrix: Matrix, rule: ScaleRule, method: Method) -> Fit:
    """Choose factors, codebook and protected weights for one matrix; raises as `count` does."""
    return fit_counted(count(matrix, rule), matrix, method)


def fit_counted(counted: MatrixSummary, matrix: Matrix, method: Method) -> Fit:
    """Choose codebook and protected weights for what was counted of a matrix."""
    scales = counted.scales
    assigned = cluster_counted(counted, matrix, method)
    unit = np.float32(1.0 if scales is None else scales.unit)
    return Fit(
        codebook=assigned.codebook * unit,
        scales=scales,
        lookup_table=lookup_table(
            assigned, matrix.float_format if scales is None else FloatFormat.F16
        ),
        counts=assigned.counts,
        n_protected=assigned.n_protected,
        moments=counted.moments,
        optimality_gap=_gap(assigned),
    )


def cluster_counted(counted: MatrixSummary, matrix: Matrix, method: Method) -> Assigned:
    """Cluster what was counted of a matrix. Weights beyond the range of keys are protected."""
    points, value_bits = counted.points, 8 * matrix.float_format.itemsize
    if isinstance(method, EntropyMethod):
        method = replace(method, unit=counted.unit)
    beyond = np.zeros(len(points), np.bool_)
    if counted.scales is not None:
        beyond = np.abs(points.values) >= LARGEST_KEY
    if not beyond.any() or beyond.all():

        def split(points: Histogram, at: NDArray[np.float64]) -> Histogram:
            return refine(points, matrix.rows, at)

        return method.assign(points, value_bits, matrix.n_chunks, split)
    within = method.assign(
        points.where(~beyond), value_bits, matrix.n_chunks, lambda points, _at: points
    )
    return within.with_protected(points, beyond)


def _count_unscaled(matrix: Matrix) -> MatrixSummary:
    points = collect(matrix.rows, matrix.float_format, matrix.name)
    return MatrixSummary(None, points.moments, points)


def _gap(assigned: Assigned) -> float:
    return optimality_gap(assigned.points.where(~assigned.protected))
