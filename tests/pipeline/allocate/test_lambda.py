"""The search for a Lagrange multiplier, on curves of sizes that are known."""

from __future__ import annotations

import numpy as np
import pytest

from isotone.pipeline.allocate.rate_search import lambda_for


class Curve:
    """A size as a function of the multiplier; counts the probes."""

    def __init__(self, bits):
        self._bits, self.n_probes = bits, 0

    def __call__(self, lambdas):
        self.n_probes += 1
        return np.array([self._bits(lambda_) for lambda_ in lambdas])


@pytest.mark.parametrize("bits", [1.0, 3.3, 8.0])
def test_a_smooth_curve_needs_a_few_probes(bits):
    curve = Curve(lambda lambda_: 0.7 - 0.45 * np.log2(lambda_))
    found = lambda_for(bits, curve)
    assert 0.7 - 0.45 * np.log2(found) == pytest.approx(bits, rel=0.001)
    assert curve.n_probes <= 4


@pytest.mark.parametrize(("bits", "expected"), [(2.2, 2.0), (3.8, 4.0)])
def test_a_curve_that_jumps_over_the_size_gives_the_nearer_side(bits, expected):
    curve = Curve(lambda lambda_: 2.0 if lambda_ > 0.01 else 4.0)
    assert curve([lambda_for(bits, curve)]) == [expected]


def test_a_model_that_never_takes_so_many_bits_gets_its_finest_clustering():
    curve = Curve(lambda lambda_: min(1.6, 0.7 - 0.45 * np.log2(lambda_)))
    assert curve([lambda_for(4.0, curve)]) == [1.6]
    assert curve.n_probes < 24
