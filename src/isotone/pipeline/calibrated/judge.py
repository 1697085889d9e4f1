"""Which matrices are clustered by what their errors cost, how, and which are not, and why.

A matrix is clustered without its statistics where there are none, where they say nothing of use
(`Sensitivity.flaw`), and where they do not help: both ways are tried at one price, and the one with
less damage on text held out is taken, sizes made equal by the rule that a bit a weight quarters the
damage. Matrices with a row for each token keep to factors of their rows: a few thousand tokens say
nothing of the rows that they lack.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from isotone.calibration.arrays import load_array, write_array
from isotone.calibration.statistics import Statistics
from isotone.checkpoint.source.source import Source
from isotone.core.calibrated.gptq import (
    Spreading,
    count_by_cost,
    errors_of,
    fit_with_feedback,
    order_of,
)
from isotone.core.calibrated.sensitivity import Sensitivity
from isotone.core.clustering.entropy import stored_bits
from isotone.core.fit import Fit, Matrix, MatrixSummary, count, fit_counted
from isotone.core.moments import moments_of
from isotone.engine.progress import Progress
from isotone.engine.tasks import Engine
from isotone.pipeline.allocate.each_matrix import Group, each_matrix, matrices_of
from isotone.pipeline.allocate.planned_matrix import PlannedMatrix
from isotone.pipeline.allocate.rate_search import fixed_bits
from isotone.plan.tensors import Clustered
from isotone.plan.vocabulary import has_row_per_token

Key = tuple[str, int]
"""A tensor's name and the place of a matrix in it."""

NO_HELP = "on held-out text it is no better than without"


_FACTORISING = threading.Lock()  # LAPACK is on all cores by itself


@dataclass(frozen=True)
class Judged:
    """What trying both ways came to.

    reason: why a matrix is clustered without its statistics, or None. bits: that it takes.
    """

    key: Key
    reason: str | None
    bits: float


class Calibration:
    """Counts and fits matrices by what is known of each.

    fallbacks: why a matrix is clustered without statistics, as far as that is known.
    about: the text that they are of, and the model.
    """

    def __init__(
        self, source: Source, statistics: Statistics, fallbacks: dict[Key, str], ordinary: float
    ) -> None:
        """ordinary: the damage of a relative error of 1 in a weight of an ordinary matrix."""
        self.fallbacks = fallbacks
        self.about = statistics.about
        self._source, self._statistics, self._ordinary = source, statistics, ordinary

    @classmethod
    def of(cls, source: Source, statistics: Statistics, plans: Sequence[Clustered]) -> Calibration:
        """Look at the statistics of all matrices, and note which are of no use."""
        fallbacks: dict[Key, str] = {}
        damages = []
        for matrix in matrices_of(plans):
            key = key_of(matrix)
            sensitivity = statistics.sensitivity(*key, matrix.plan.matrix_shape[0])
            reason = _reason(source, matrix, sensitivity)
            if reason is not None or sensitivity is None:
                fallbacks[key] = reason or ""
                continue
            moments = moments_of(
                matrix.read_from(source).rows, matrix.read_from(source).float_format
            )
            mean_square = moments.squares_about_mean / moments.n_weights + moments.mean**2
            damages.append(sensitivity.unit_loss / moments.n_weights * mean_square)
        return cls(source, statistics, fallbacks, float(np.median(damages)) if damages else 1.0)

    def count(self, matrix: PlannedMatrix, whole: Matrix) -> MatrixSummary:
        """A matrix in short, by its statistics where those are used; see core.fit.count."""
        if key_of(matrix) in self.fallbacks:
            return self._count_plainly(matrix, whole)
        sensitivity, spreading = self._sensitivity(matrix), self._spreading(matrix, whole)
        counted = count_by_cost(whole, matrix.plan.settings.scale, sensitivity, spreading.step)
        return self._in_units(counted)

    def fit(self, matrix: PlannedMatrix) -> Fit:
        """Cluster a matrix."""
        whole = matrix.read_from(self._source)
        counted, method = self.count(matrix, whole), matrix.plan.settings.method
        if key_of(matrix) in self.fallbacks:
            return fit_counted(counted, whole, method)
        return fit_with_feedback(whole, counted, self._spreading(matrix, whole), method)

    def judge(self, matrix: PlannedMatrix) -> Judged:
        """Cluster a matrix both ways, and choose. Cost: rows * columns^2, a few times."""
        key, whole = key_of(matrix), matrix.read_from(self._source)
        fit = self.fit(matrix)
        bits = _bits(matrix, whole, fit)
        if key in self.fallbacks:
            return Judged(key, self.fallbacks[key], bits)
        plain = fit_counted(self._count_plainly(matrix, whole), whole, matrix.plan.settings.method)
        plain_bits = _bits(matrix, whole, plain)
        judge = self._statistics.held_out(*key, whole.shape[0])
        assert judge is not None
        loss, plain_loss = (judge.expected_loss(errors_of(whole, each)) for each in (fit, plain))
        n_weights = matrix.plan.layout.matrix_weights
        if loss * 4.0 ** ((bits - plain_bits) / n_weights) < plain_loss:
            return Judged(key, None, bits)
        return Judged(key, NO_HELP, plain_bits)

    def bits(self, matrix: PlannedMatrix) -> float:
        """What a matrix takes on disk."""
        return _bits(matrix, matrix.read_from(self._source), self.fit(matrix))

    def _count_plainly(self, matrix: PlannedMatrix, whole: Matrix) -> MatrixSummary:
        counted = count(whole, matrix.plan.settings.scale)
        if self.fallbacks.get(key_of(matrix), NO_HELP) != NO_HELP:
            return counted
        sensitivity = self._sensitivity(matrix)
        row, column = np.ones(whole.shape[0]), np.ones(whole.shape[1])
        if counted.scales is not None:
            row = counted.scales.unit * counted.scales.row_scales().astype(np.float64)
            column = counted.scales.column_scales().astype(np.float64)
        inputs = np.diag(sensitivity.inputs).astype(np.float64)
        cost = 0.5 * float(np.mean(sensitivity.outputs * row**2) * np.mean(inputs * column**2))
        return self._in_units(replace(counted, unit=1.0 / cost))

    def _in_units(self, counted: MatrixSummary) -> MatrixSummary:
        """Prices stay what they are without statistics: relative to an ordinary matrix."""
        assert counted.unit is not None
        return replace(counted, unit=counted.unit * self._ordinary)

    def _sensitivity(self, matrix: PlannedMatrix) -> Sensitivity:
        found = self._statistics.sensitivity(*key_of(matrix), matrix.plan.matrix_shape[0])
        assert found is not None  # it would be among the fallbacks
        return found

    def _spreading(self, matrix: PlannedMatrix, whole: Matrix) -> Spreading:
        """Computed once, and kept beside the statistics."""
        path = self._statistics.factor_file(*key_of(matrix))
        with _FACTORISING:
            if not path.exists():
                inputs = self._sensitivity(matrix).inputs
                write_array(path, Spreading.of(inputs, order_of(whole, inputs)).to_array())
        return Spreading.of_array(load_array(path))


def judge_all(
    calibration: Calibration, groups: Sequence[Group], engine: Engine, progress: Progress
) -> float:
    """Try every matrix both ways; notes fallbacks, and returns the bits of all together."""
    with each_matrix(engine, calibration.judge, groups, progress) as ask:
        judged = ask("judging")
    calibration.fallbacks |= {each.key: each.reason for each in judged if each.reason is not None}
    return math.fsum(each.bits for each in judged)


def bits_of_all(
    calibration: Calibration, groups: Sequence[Group], engine: Engine, progress: Progress
) -> float:
    """What all matrices take on disk together."""
    with each_matrix(engine, calibration.bits, groups, progress) as ask:
        return math.fsum(ask("measuring"))


def key_of(matrix: PlannedMatrix) -> Key:
    """What a matrix is called here."""
    return matrix.plan.tensor.name, matrix.index


def _reason(source: Source, matrix: PlannedMatrix, sensitivity: Sensitivity | None) -> str | None:
    """Why the statistics of a matrix are of no use."""
    if has_row_per_token(source, matrix.plan.tensor):
        return "it has a row for each token"
    if sensitivity is None:
        return "no linear layer was seen to use it"
    if (flaw := sensitivity.flaw()) is not None:
        return flaw
    return None


def _bits(matrix: PlannedMatrix, whole: Matrix, fit: Fit) -> float:
    value_bits = 8 * whole.float_format.itemsize
    coded = stored_bits(fit.counts, fit.n_protected, value_bits, whole.n_chunks)
    return coded + fixed_bits(matrix, fit.scales)
