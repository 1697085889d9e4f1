"""Laws of clustering with error feedback, on small matrices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from isotone import _native
from isotone.core.calibrated.gptq import fit_with_feedback
from isotone.core.calibrated.inverse_hessian import InverseHessianFactor, column_order
from isotone.core.calibrated.scales import summarise_by_cost
from isotone.core.clustering.entropy import EntropyMethod
from isotone.core.clustering.kmeans import KMeansMethod
from isotone.core.clustering.outliers import Protection
from isotone.core.fit import fit_summary
from isotone.core.float_format import FloatFormat
from isotone.core.matrix import Matrix
from isotone.core.scales.balancing import ScaleRule
from tests.builders.calibrated import errors, matrix_of, moment, sensitivity_of

BLOCK = 64  # of native/gptq.cpp


def clustered(matrix, sensitivity, method, rule=ScaleRule.AUTO, order_of=column_order):
    order = order_of(matrix, sensitivity.inputs)
    feedback = InverseHessianFactor.of(sensitivity.inputs, order)
    summary = summarise_by_cost(matrix, rule, sensitivity, feedback.error_unit)
    summary = replace(summary, unit=None)  # λ relative to the matrix: about three bits
    return summary, fit_with_feedback(matrix, summary, feedback, method)


def by_columns(weights, factor, labels, codebook):
    """Column by column, sums in the order that native/gptq.cpp promises."""
    values, ranks = weights.copy(), np.empty(weights.shape, np.uint8)
    keys = np.empty(len(weights), np.uint16)
    one = np.ones(1, np.float32)
    for first in range(0, weights.shape[1], BLOCK):
        last = min(first + BLOCK, weights.shape[1])
        beyond = np.zeros_like(values[:, last:])
        for j in range(first, last):
            column = np.ascontiguousarray(values[:, j])
            _native.divide(column.view(np.uint8), 2, 0, np.ones(len(column), np.float32), one, keys)
            ranks[:, j] = labels[keys].astype(np.uint8)
            restored = np.where(labels[keys] >= 256, weights[:, j], codebook[ranks[:, j]])
            error = (column - restored)[:, None]
            values[:, j + 1 : last] -= error * factor[j, j + 1 : last]
            beyond += error * factor[j, last:]
        values[:, last:] -= beyond
    return ranks


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (33, 64), (70, 65), (5, 131), (40, 257)])
def test_ranks_are_those_of_a_column_by_column_reference(shape):
    rng = np.random.default_rng(sum(shape))
    weights = rng.standard_t(4, shape).astype(np.float32)
    factor = (rng.normal(size=(shape[1], shape[1])) / 9).astype(np.float32)
    codebook = np.linspace(-3, 3, 9).astype(np.float32)
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    labels = np.abs(np.nan_to_num(values)[:, None] - codebook).argmin(1).astype(np.uint16)
    labels[np.abs(np.nan_to_num(values)) > 6] += 256
    ranks = np.empty(weights.size, np.uint8)
    positions = _native.round_with_feedback(
        weights.reshape(-1), shape[1], factor.reshape(-1), labels, codebook, ranks
    )
    reference = by_columns(weights, factor, labels, codebook)
    np.testing.assert_array_equal(ranks.reshape(shape), reference)
    assert (np.diff(positions) > 0).all()
    # Rows do not touch each other, wherever they are cut.
    cut = shape[0] // 2
    lower = np.empty((shape[0] - cut) * shape[1], np.uint8)
    _native.round_with_feedback(
        weights[cut:].reshape(-1), shape[1], factor.reshape(-1), labels, codebook, lower
    )
    np.testing.assert_array_equal(lower.reshape(-1, shape[1]), reference[cut:])


def test_columns_may_change_places():
    """With their inputs, and nothing else: the errors are those of before, in other places."""
    rng = np.random.default_rng(9)
    weights, inputs, places = rng.normal(size=(40, 70)), moment(rng, 70), rng.permutation(70)
    sensitivity = sensitivity_of(rng, weights.shape, inputs)
    moved = replace(sensitivity, inputs=inputs[np.ix_(places, places)])
    matrix, moved_matrix = matrix_of(weights), matrix_of(weights[:, places])
    _, found = clustered(matrix, sensitivity, EntropyMethod(0.02))
    _, also = clustered(moved_matrix, moved, EntropyMethod(0.02))
    np.testing.assert_array_equal(errors(matrix, found)[:, places], errors(moved_matrix, also))


def test_those_that_bring_most_first_do_less_damage_than_last():
    ratios = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        matrix = matrix_of(rng.normal(size=(64, 96)))
        sensitivity = sensitivity_of(rng, matrix.shape)
        damages = []
        method = KMeansMethod(8, Protection.parse("off"))
        for order_of in (column_order, lambda *given: column_order(*given)[::-1]):
            _, found = clustered(matrix, sensitivity, method, order_of=order_of)
            damages.append(sensitivity.expected_loss(errors(matrix, found)))
        ratios.append(damages[0] / damages[1])
    assert np.mean(ratios) < 0.95


@pytest.mark.parametrize("method", [EntropyMethod(0.02), KMeansMethod(16, Protection())])
def test_inputs_that_have_nothing_to_do_with_each_other_change_no_rank(method):
    rng = np.random.default_rng(2)
    matrix = matrix_of(rng.normal(size=(50, 80)))
    sensitivity = sensitivity_of(rng, matrix.shape, np.eye(80, dtype=np.float32))
    summary, found = clustered(matrix, sensitivity, method)
    plain = fit_summary(summary, matrix, method)
    np.testing.assert_array_equal(errors(matrix, found), errors(matrix, plain))
    np.testing.assert_array_equal(found.counts, plain.counts)


@pytest.mark.parametrize("method", [EntropyMethod(0.02), KMeansMethod(8, Protection.parse("off"))])
def test_feedback_does_less_damage_than_rounding_with_the_same_codebook(method):
    ratios = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        matrix = matrix_of(rng.normal(size=(64, 96)))
        sensitivity = sensitivity_of(rng, matrix.shape)
        summary, found = clustered(matrix, sensitivity, method)
        plain = fit_summary(summary, matrix, method)
        ratios.append(
            sensitivity.expected_loss(errors(matrix, found))
            / sensitivity.expected_loss(errors(matrix, plain))
        )
    assert max(ratios) < 1.0
    assert np.mean(ratios) < 0.8  # it is 0.5 or so on inputs like these


def test_protected_weights_come_back_as_they_were():
    rng = np.random.default_rng(4)
    weights = rng.normal(size=(64, 96))
    weights[3, 5], weights[60, 95] = 80.0, -70.0
    matrix = matrix_of(weights)
    _, found = clustered(matrix, sensitivity_of(rng, matrix.shape), KMeansMethod(8, Protection()))
    assert found.n_protected == len(found.positions) > 0
    assert not errors(matrix, found).reshape(-1)[found.positions].any()


def test_pieces_are_parts_of_the_whole():
    rng = np.random.default_rng(5)
    matrix = matrix_of(rng.standard_t(3, (40, 50)))
    _, found = clustered(matrix, sensitivity_of(rng, matrix.shape), KMeansMethod(4, Protection()))
    (bits,) = matrix.rows()
    places = []
    for start in range(0, len(bits), 333):
        piece = bits[start : start + 333]
        ranks = np.empty(len(piece), np.uint8)
        places.append(found.assign(piece, start, FloatFormat.BF16, ranks) + start)
        np.testing.assert_array_equal(ranks, found.ranks[start : start + 333])
    np.testing.assert_array_equal(np.concatenate(places), found.positions)


@pytest.mark.parametrize("rule", list(ScaleRule))
def test_a_scale_rule_says_which_scales_there_are(rule):
    rng = np.random.default_rng(6)
    matrix = matrix_of(rng.normal(size=(40, 50)))
    _, found = clustered(matrix, sensitivity_of(rng, matrix.shape), EntropyMethod(0.02), rule)
    assert (found.row_scale is None) == (rule is ScaleRule.NONE)
    assert (found.column_scale is None) == (rule in (ScaleRule.NONE, ScaleRule.ROW))


def test_dead_inputs_and_dead_rows_are_clustered_all_the_same():
    rng = np.random.default_rng(7)
    weights = rng.normal(size=(40, 50))
    weights[7] = weights[:, 9] = 0.0
    inputs = moment(rng, 50)
    inputs[11] = inputs[:, 11] = 0.0
    matrix = matrix_of(weights)
    sensitivity = sensitivity_of(rng, matrix.shape, inputs)
    assert sensitivity.flaw() is None
    _, found = clustered(matrix, sensitivity, EntropyMethod(0.02))
    assert np.isfinite(errors(matrix, found)).all()
    zeros = Matrix(lambda: (np.zeros(2000, np.uint16),), (40, 50), FloatFormat.BF16, "zeros")
    _, found = clustered(zeros, sensitivity, EntropyMethod(0.02))
    assert not errors(zeros, found).any()
