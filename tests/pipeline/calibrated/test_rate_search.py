"""The correction of a Lagrange multiplier by measured sizes: by hand."""

from __future__ import annotations

import math

import pytest

from isotone.pipeline.calibrated.rate_search import _correction


def test_one_measurement_is_followed_by_four_times_the_lambda_for_each_bit_too_many():
    assert _correction({0.02: 3.5}, 3.0) == pytest.approx(2.0, rel=1e-12)
    assert _correction({0.02: 3.0}, 4.0) == pytest.approx(0.25, rel=1e-12)


def test_two_measurements_are_followed_along_their_line():
    # Doubling took off a quarter of a bit; a quarter of a bit is still to come off.
    assert _correction({0.02: 3.5, 0.04: 3.25}, 3.0) == pytest.approx(2.0, rel=1e-12)


@pytest.mark.parametrize(("found", "steepest"), [(3.499, 4.0), (0.5, 0.25)])
def test_a_line_that_is_too_flat_or_too_steep_is_not_believed(found, steepest):
    expected = math.exp(-math.log(4.0) * steepest * (3.0 - found))
    assert _correction({0.02: 3.5, 0.04: found}, 3.0) == pytest.approx(expected, rel=1e-12)
