"""The inverse-Hessian factor, and the order of the columns."""

from __future__ import annotations

import numpy as np

from isotone.core.calibrated.inverse_hessian import InverseHessianFactor, column_order
from tests.builders.calibrated import matrix_of, moment


def test_the_factor_is_the_cholesky_factor_of_the_inverse():
    given = moment(np.random.default_rng(1), 300).astype(np.float64)
    order = np.random.default_rng(2).permutation(300)
    feedback = InverseHessianFactor.of(given.astype(np.float32), order)
    damped = given[np.ix_(order, order)]
    upper = np.triu(feedback.factor, 1) + np.eye(300)
    inverse = upper.T @ np.diag(feedback.error_unit[order] ** 2) @ upper
    # Damped on the diagonal by a fifth of itself and a hundredth of its mean, and nowhere else.
    product = np.linalg.inv(inverse)
    off = ~np.eye(300, dtype=bool)
    np.testing.assert_allclose(product[off], damped[off], atol=1e-3 * damped.max())
    diagonal = np.diag(damped)
    np.testing.assert_allclose(
        np.diag(product), 1.2 * diagonal + 0.01 * diagonal.mean(), rtol=1e-3, atol=1e-3
    )


def test_what_is_kept_of_a_factor_brings_it_back():
    rng = np.random.default_rng(8)
    feedback = InverseHessianFactor.of(moment(rng, 40), rng.permutation(40))
    again = InverseHessianFactor.of_array(feedback.to_array())
    np.testing.assert_array_equal(np.triu(again.factor, 1), np.triu(feedback.factor, 1))
    np.testing.assert_array_equal(again.error_unit, feedback.error_unit.astype(np.float32))
    np.testing.assert_array_equal(again.order, feedback.order)


def test_the_order_is_that_of_what_columns_bring_however_channels_are_scaled():
    rng = np.random.default_rng(10)
    weights = np.ones((3, 4)) * [1.0, 3.0, 2.0, 2.0]
    inputs = np.diag([10.0, 1.0, 2.0, 2.0]).astype(np.float32)
    assert column_order(matrix_of(weights), inputs).tolist() == [0, 1, 2, 3]  # 10, 9, 8, 8
    weights, inputs = rng.normal(size=(40, 70)), moment(rng, 70)
    channels = np.exp2(rng.integers(-4, 5, 70))
    scaled = (inputs * np.outer(channels, channels)).astype(np.float32)
    np.testing.assert_array_equal(
        column_order(matrix_of(weights), inputs),
        column_order(matrix_of(weights / channels), scaled),
    )
