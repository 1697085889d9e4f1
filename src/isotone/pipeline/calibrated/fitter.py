"""Clusters matrices by their statistics, and by their weights alone where those are of no use.

The statistics of a matrix are not used if there are none, if they say nothing of use
(`Sensitivity.flaw`), or if they do not help (`judge.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from isotone.calibration.arrays import load_array, write_array
from isotone.calibration.statistics import Statistics
from isotone.checkpoint.source.source import Source
from isotone.core.calibrated.gptq import fit_with_feedback
from isotone.core.calibrated.inverse_hessian import InverseHessianFactor, column_order
from isotone.core.calibrated.scales import summarise_by_cost
from isotone.core.calibrated.sensitivity import Sensitivity
from isotone.core.fit import Fit, fit_summary
from isotone.core.matrix import Matrix, MatrixSummary, summarise_matrix
from isotone.pipeline.allocate.planned_matrix import PlannedMatrix
from isotone.pipeline.allocate.rate_probe import fixed_bits
from isotone.pipeline.calibrated.usable import MatrixKey, calibrated_share, usability_of
from isotone.plan.tensors import Clustered

NO_HELP = "on held-out text it is no better than without"
"""The reason of a fallback that was found by trying."""

_FACTORISING = threading.Lock()  # LAPACK uses all cores by itself


class CalibratedFitter:
    """Summarises and clusters matrices by what is known of each.

    Attribute `fallbacks` has, for each matrix that is clustered without statistics, the reason;
    `statistics` are those in use.

    Parameters
    ----------
    source : Source
        The model.
    statistics : Statistics
        The statistics of its matrices.
    fallbacks : dict of (str, int) to str
        The matrices that are clustered without statistics, as far as they are known, and why.
    ordinary : float
        The expected loss of a relative error of 1 in one weight of an ordinary matrix.
    """

    def __init__(
        self,
        source: Source,
        statistics: Statistics,
        fallbacks: dict[MatrixKey, str],
        ordinary: float,
    ) -> None:
        self.fallbacks, self.statistics = fallbacks, statistics
        self._source, self._ordinary = source, ordinary

    @classmethod
    def of(
        cls, source: Source, statistics: Statistics, plans: Sequence[Clustered]
    ) -> CalibratedFitter:
        """Read the statistics of all matrices, and note which are of no use.

        Parameters
        ----------
        source : Source
            The model.
        statistics : Statistics
            The statistics of its matrices.
        plans : sequence of Clustered
            The tensors to be clustered.

        Returns
        -------
        CalibratedFitter
            The fitter.

        Raises
        ------
        InputError
            If the statistics are of use for none of the matrices of linear layers.
        """
        found = usability_of(source, statistics, plans)
        return cls(source, statistics, found.fallbacks, found.ordinary)

    def share(self, plans: Sequence[Clustered]) -> float:
        """Return which share of the weights of linear layers is clustered by statistics.

        Parameters
        ----------
        plans : sequence of Clustered
            The tensors that are clustered.

        Returns
        -------
        float
            0 to 1.
        """
        return calibrated_share(self._source, plans, self.fallbacks)

    @property
    def costed(self) -> frozenset[str]:
        """The tensors of which it is known what errors cost, also where calibration is no help."""
        return frozenset(
            name
            for name, matrix in self.statistics.matrices
            if self.fallbacks.get((name, matrix), NO_HELP) == NO_HELP
        )

    def summarise(self, matrix: PlannedMatrix, weights: Matrix) -> MatrixSummary:
        """Summarise a matrix, by its statistics where those are used.

        Parameters
        ----------
        matrix : PlannedMatrix
            The matrix in its plan.
        weights : Matrix
            The matrix as it is read.

        Returns
        -------
        MatrixSummary
            Its scales, and the histogram of the weights divided by them.
        """
        if matrix.key in self.fallbacks:
            return self._summarise_plainly(matrix, weights)
        sensitivity, factor = self._sensitivity(matrix), self._factor(matrix, weights)
        rule = matrix.plan.settings.scale
        return self._relative(summarise_by_cost(weights, rule, sensitivity, factor.error_unit))

    def fit(self, matrix: PlannedMatrix) -> Fit:
        """Cluster a matrix, by its statistics where those are used.

        Parameters
        ----------
        matrix : PlannedMatrix
            The matrix.

        Returns
        -------
        Fit
            The clustered matrix.
        """
        weights = self.read(matrix)
        summary, method = self.summarise(matrix, weights), matrix.plan.settings.method
        if matrix.key in self.fallbacks:
            return fit_summary(summary, weights, method)
        return fit_with_feedback(weights, summary, self._factor(matrix, weights), method)

    def fit_plainly(self, matrix: PlannedMatrix, weights: Matrix) -> Fit:
        """Cluster a matrix without GPTQ error feedback and without scales from its statistics.

        Parameters
        ----------
        matrix : PlannedMatrix
            The matrix in its plan.
        weights : Matrix
            The matrix as it is read.

        Returns
        -------
        Fit
            The clustered matrix.
        """
        summary = self._summarise_plainly(matrix, weights)
        return fit_summary(summary, weights, matrix.plan.settings.method)

    def bits(self, matrix: PlannedMatrix) -> float:
        """Return the bits that a matrix takes on disk.

        Parameters
        ----------
        matrix : PlannedMatrix
            The matrix; it is clustered for this.

        Returns
        -------
        float
            All its bits.
        """
        return bits_of(matrix, self.read(matrix), self.fit(matrix))

    def read(self, matrix: PlannedMatrix) -> Matrix:
        """Return the weights of a matrix.

        Parameters
        ----------
        matrix : PlannedMatrix
            The matrix.

        Returns
        -------
        Matrix
            The matrix as it is read.
        """
        return matrix.read_from(self._source)

    def _summarise_plainly(self, matrix: PlannedMatrix, weights: Matrix) -> MatrixSummary:
        summary = summarise_matrix(weights, matrix.plan.settings.scale)
        if self.fallbacks.get(matrix.key, NO_HELP) != NO_HELP:
            return summary
        sensitivity = self._sensitivity(matrix)
        row, column = np.ones(weights.shape[0]), np.ones(weights.shape[1])
        if summary.scales is not None:
            row, column = summary.scales.products()
        inputs = np.diag(sensitivity.inputs).astype(np.float64)
        cost = 0.5 * float(np.mean(sensitivity.outputs * row**2) * np.mean(inputs * column**2))
        return self._relative(replace(summary, unit=1.0 / cost))

    def _relative(self, summary: MatrixSummary) -> MatrixSummary:
        """Express the unit of a summary relative to an ordinary matrix.

        Lagrange multipliers then mean what they mean without statistics.
        """
        assert summary.unit is not None
        return replace(summary, unit=summary.unit * self._ordinary)

    def _sensitivity(self, matrix: PlannedMatrix) -> Sensitivity:
        found = self.statistics.sensitivity(*matrix.key, matrix.plan.matrix_shape[0])
        assert found is not None  # it would be among the fallbacks
        return found

    def _factor(self, matrix: PlannedMatrix, weights: Matrix) -> InverseHessianFactor:
        """Return the inverse-Hessian factor; it is computed once and kept with the statistics."""
        path = self.statistics.factor_file(*matrix.key)
        with _FACTORISING:
            if not path.exists():
                inputs = self._sensitivity(matrix).inputs
                factor = InverseHessianFactor.of(inputs, column_order(weights, inputs))
                write_array(path, factor.to_array())
        return InverseHessianFactor.of_array(load_array(path))


def bits_of(matrix: PlannedMatrix, weights: Matrix, fit: Fit) -> float:
    """Return the bits that a clustered matrix takes on disk.

    Parameters
    ----------
    matrix : PlannedMatrix
        The matrix in its plan.
    weights : Matrix
        The matrix as it is read.
    fit : Fit
        How it was clustered.

    Returns
    -------
    float
        All its bits.
    """
    clustered = weights.rate.clustered_bits(fit.counts, fit.n_protected)
    return clustered + fixed_bits(matrix, fit.scales)
