"""The schedule of the learning rate."""

from __future__ import annotations

from itertools import pairwise

from isotone.healing.settings import HealSettings


def test_the_learning_rate_rises_and_falls():
    rates = [HealSettings(steps=40).rate(step) for step in range(40)]
    assert rates[:2] == [0.5, 1.0]
    assert rates.index(max(rates)) in (1, 2)
    assert 0 < rates[-1] < 0.03
    assert all(later < earlier for earlier, later in pairwise(rates[2:]))
    assert HealSettings(steps=1).rate(0) == 1.0
