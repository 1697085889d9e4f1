"""Means, perplexity and divergence with standard errors, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from isotone.evaluation.comparison import TokenComparison
from isotone.evaluation.metrics import divergence, mean, perplexity


def test_perplexity_and_its_error_are_those_of_llama_cpp():
    losses = np.array([1.0, 2.0, 2.0, 4.0, 6.0])
    n, total, squares = 5, 15.0, 61.0
    error = math.sqrt((squares / n - (total / n) ** 2) / (n - 1))
    found = perplexity(losses)
    assert found.n_tokens == n
    assert found.perplexity.value == pytest.approx(math.exp(3.0), rel=1e-14)
    assert found.perplexity.standard_error == pytest.approx(math.exp(3.0) * error, rel=1e-14)


def test_one_observation_has_no_standard_error():
    assert math.isnan(mean(np.array([2.0])).standard_error)


def test_summary_of_a_comparison_worked_out_by_hand():
    right = np.array([True, True, False, False, False])
    before = np.array([True, False, True, True, False])
    loss, kl = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([0.5, 0.0, 1.0, 0.0, 4.0])
    same = np.array([True, False, False, False, True])
    found = divergence(TokenComparison(loss, loss - 0.5, kl, same, right, before))
    assert (found.kl.value, found.kl_median) == (1.1, 0.5)
    assert found.kl_99 == pytest.approx(1.0 + 0.96 * 3.0)  # at rank 0.99 * 4, between 1 and 4
    assert found.top1_agreement.value == 0.4
    assert found.top1_agreement.standard_error == pytest.approx(math.sqrt(0.4 * 0.6 / 4))
    assert (found.lost.value, found.gained.value, found.flipped.value) == (0.4, 0.2, 0.6)
    assert found.perplexity_ratio.value == pytest.approx(math.exp(0.5))
    assert found.perplexity_ratio.standard_error == pytest.approx(0.0)
