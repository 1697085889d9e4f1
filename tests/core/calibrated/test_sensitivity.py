"""What errors in a matrix cost."""

from __future__ import annotations

import numpy as np
import pytest

from isotone.core.calibrated.sensitivity import FEWEST_TOKENS, Sensitivity


def test_damage_is_the_mean_square_of_what_comes_out():
    rng = np.random.default_rng(3)
    inputs, errors = rng.normal(size=(500, 20)), rng.normal(size=(30, 20))
    sensitivity = Sensitivity(
        (inputs.T @ inputs / 500).astype(np.float32), rng.random(30).astype(np.float32), 500
    )
    turned = (inputs @ errors.T) ** 2
    expected = 0.5 * (turned.mean(0) @ sensitivity.outputs)
    assert sensitivity.expected_loss(errors.astype(np.float32)) == pytest.approx(expected, rel=1e-5)


def test_statistics_that_say_nothing_have_a_flaw():
    eye, ones = np.eye(4, dtype=np.float32), np.ones(3, np.float32)
    assert Sensitivity(eye, ones, FEWEST_TOKENS).flaw() is None
    assert "tokens" in (Sensitivity(eye, ones, FEWEST_TOKENS - 1).flaw() or "")
    assert "zero" in (Sensitivity(0 * eye, ones, 1000).flaw() or "")
    assert "outputs" in (Sensitivity(eye, 0 * ones, 1000).flaw() or "")
    assert "finite" in (Sensitivity(eye * np.float32("nan"), ones, 1000).flaw() or "")
    assert "finite" in (Sensitivity(eye, ones * np.float32("inf"), 1000).flaw() or "")
