"""Axes: what lies beyond them, and their ticks."""

from __future__ import annotations

import math

import pytest

from isotone.reporting.axis import fit_axis


def test_what_lies_beyond_an_axis_is_at_its_edge():
    axis = fit_axis([1.0, 50.0, 1e9, math.inf, 1e-5], most=1e3, least=0.5)
    assert axis.low < axis.level(1e-5) < 1.0
    assert axis.level(50.0) == 50.0
    assert 50.0 < axis.level(1e9) == axis.level(math.inf) < axis.high < 1e3
    assert [axis.is_beyond(value) for value in (50.0, 1e9, math.inf)] == [False, True, True]


@pytest.mark.parametrize("high", [1.01, 20.0, 1e3, 1e5, 1e12])
def test_one_is_a_tick_of_every_axis(high):
    ticks = fit_axis([1.0, high], most=math.inf).ticks()
    assert 1.0 in ticks
    assert len(ticks) <= 10
