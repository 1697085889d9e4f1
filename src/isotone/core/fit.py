"""Fitting one matrix: everything that is decided before its weights are given their ranks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from isotone.core.clustering.lookup import LookupTable, lookup_table
from isotone.core.clustering.method import Assigned, Method
from isotone.core.counting import refine
from isotone.core.float_format import Bits, FloatFormat
from isotone.core.histogram import Histogram, optimality_bound
from isotone.core.matrix import Matrix, MatrixSummary, summarise_matrix
from isotone.core.moments import Moments
from isotone.core.scales.balancing import ScaleRule
from isotone.core.scales.scales import LARGEST_KEY, Scales
from isotone.core.values import Values


@dataclass(frozen=True)
class Fit:
    """A clustered matrix without its ranks.

    Attributes
    ----------
    codebook : float32 array, `[k]`
        The centroids, strictly ascending; k is at most what was asked for.
    scales : Scales, optional
        The scales of the matrix, or None.
    lookup_table : LookupTable
        Gives ranks to weights, or to their keys if there are scales.
    counts : int64 array, `[k]`
        The number of weights at each centroid, protected ones included.
    n_protected : int
        The number of protected weights.
    moments : Moments
        The moments of the weights.
    optimality_bound : float
        A bound on how much the best codebook could lower the squared error of what is clustered
        (the weights, or their keys if there are scales); 0 if the codebook is the best.
    """

    codebook: NDArray[np.float32]
    scales: Scales | None
    lookup_table: LookupTable
    counts: NDArray[np.int64]
    n_protected: int
    moments: Moments
    optimality_bound: float

    @property
    def row_scale(self) -> NDArray[np.uint8] | None:
        """The codes of the rows' scales, `[rows]`, or None."""
        return None if self.scales is None else self.scales.row

    @property
    def column_scale(self) -> NDArray[np.uint8] | None:
        """The codes of the columns' scales, `[columns]`, or None."""
        return None if self.scales is None else self.scales.column

    def values(
        self,
        shape: tuple[int, int],
        float_format: FloatFormat,
        positions: NDArray[np.int64],
        protected: Bits,
    ) -> Values:
        """Return the values of the matrix, which decode its ranks.

        Parameters
        ----------
        shape : tuple of int
            Rows and columns of the matrix.
        float_format : FloatFormat
            The format of its weights.
        positions : int64 array, `[p]`
            Ascending positions of the protected weights to include.
        protected : uint16 or uint32 array, `[p]`
            Those weights as bit patterns.

        Returns
        -------
        Values
            They share the arrays of the fit.
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

    def of_rows(self, first: int, n_rows: int) -> Fit:
        """Return the fit of some rows, whose values decode their ranks.

        Parameters
        ----------
        first : int
            The first row.
        n_rows : int
            The number of rows.

        Returns
        -------
        Fit
            It shares the arrays.
        """
        scales = self.scales
        if scales is None or scales.row is None:
            return self
        return replace(self, scales=replace(scales, row=scales.row[first : first + n_rows]))

    def assign(
        self, bits: Bits, position: int, float_format: FloatFormat, ranks: NDArray[np.uint8]
    ) -> NDArray[np.int64]:
        """Write the ranks of a run of weights, and return the positions of protected ones.

        Parameters
        ----------
        bits : uint16 or uint32 array, `[n]`
            Consecutive weights of the matrix as bit patterns.
        position : int
            The position of the first of them in the matrix.
        float_format : FloatFormat
            The format of the patterns.
        ranks : uint8 array, `[n]`
            Receives the ranks.

        Returns
        -------
        int64 array, `[p]`
            Ascending positions of the protected weights in the run.
        """
        if self.scales is None:
            return self.lookup_table.assign(bits, ranks)
        return self.lookup_table.assign(self.scales.divider(float_format)(bits, position), ranks)


def fit(matrix: Matrix, rule: ScaleRule, method: Method) -> Fit:
    """Choose scales, codebook and protected weights for one matrix.

    Parameters
    ----------
    matrix : Matrix
        The matrix to read.
    rule : ScaleRule
        Which scales it gets.
    method : Method
        How its histogram is clustered.

    Returns
    -------
    Fit
        It raises the errors of `summarise_matrix`.
    """
    return fit_summary(summarise_matrix(matrix, rule), matrix, method)


def fit_summary(summary: MatrixSummary, matrix: Matrix, method: Method) -> Fit:
    """Choose codebook and protected weights for a matrix that is summarised.

    Parameters
    ----------
    summary : MatrixSummary
        The summary of the matrix.
    matrix : Matrix
        The matrix; read again only to split bins.
    method : Method
        How the histogram is clustered.

    Returns
    -------
    Fit
        The clustered matrix.
    """
    scales = summary.scales
    assigned = cluster_summary(summary, matrix, method)
    unit = np.float32(1.0 if scales is None else scales.unit)
    return Fit(
        codebook=assigned.codebook * unit,
        scales=scales,
        lookup_table=lookup_table(
            assigned, matrix.float_format if scales is None else FloatFormat.F16
        ),
        counts=assigned.counts,
        n_protected=assigned.n_protected,
        moments=summary.moments,
        optimality_bound=optimality_bound(assigned.histogram.where(~assigned.protected)),
    )


def cluster_summary(summary: MatrixSummary, matrix: Matrix, method: Method) -> Assigned:
    """Cluster the histogram of a matrix. Weights beyond the range of keys are protected.

    Parameters
    ----------
    summary, matrix, method
        See `fit_summary`.

    Returns
    -------
    Assigned
        The clustered histogram.
    """
    histogram, rate, unit = summary.histogram, matrix.rate, summary.unit
    beyond = np.zeros(len(histogram), np.bool_)
    if summary.scales is not None:
        beyond = np.abs(histogram.values) >= LARGEST_KEY
    if beyond.any() and not beyond.all():
        within = method.assign(histogram.where(~beyond), rate, unit)
        return within.with_protected(histogram, beyond)

    def split(histogram: Histogram, at: NDArray[np.float64]) -> Histogram:
        return refine(histogram, matrix.rows, at)

    return method.assign(histogram, rate, unit, split)
