"""Spearman's rank correlation, by hand."""

from __future__ import annotations

import math

import pytest

from isotone.reporting.findings.correlation import rank_correlation


def test_rank_correlation_by_hand():
    assert rank_correlation([1, 2, 3, 4], [10, 30, 20, math.inf]) == pytest.approx(0.8)
    assert rank_correlation([1, 1, 2], [3, 3, 9]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3], [9, 4, 1]) == pytest.approx(-1.0)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
    assert rank_correlation([1, 2], [1, 2]) is None
