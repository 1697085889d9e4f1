"""The three formats as patterns: widening is exact, narrowing rounds to nearest, ties to even."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotone.core.float_format import FloatFormat
from isotone.core.histogram import order_keys, values_of

PATTERNS = np.arange(1 << 16, dtype=np.uint16)
SIXTEEN_BITS = [FloatFormat.BF16, FloatFormat.F16]


@pytest.mark.parametrize("float_format", SIXTEEN_BITS)
def test_every_pattern_survives_widening_and_narrowing(float_format):
    values = float_format.upcast(PATTERNS)
    finite = np.isfinite(values)
    assert finite.sum() == {"BF16": 2 * 255 * 128, "F16": 2 * 31 * 1024}[float_format.value]
    assert np.array_equal(float_format.downcast(values[finite]), PATTERNS[finite])


def test_hand_checked_bfloat16():
    # 1 + 2**-8 lies in the middle of 1 and 1 + 2**-7 (odd): to even, down. 1 + 3 * 2**-8: up.
    values = np.array([1.0, 1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8 - 2.0**-20, 3.4e38], "f4")
    expected = [0x3F80, 0x3F80, 0x3F82, 0xBF81, 0x7F7F]
    assert FloatFormat.BF16.downcast(values).tolist() == expected


@pytest.mark.parametrize("float_format", SIXTEEN_BITS)
@given(value=st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_narrowing_finds_the_nearest_and_stays_finite(float_format, value):
    values = float_format.upcast(PATTERNS)
    finite = np.where(np.isfinite(values), values, np.inf).astype(np.float64)
    distances = np.abs(finite - value)
    found = float_format.downcast(np.array([value], np.float32))
    assert distances[found[0]] == distances.min()
    if (distances == distances.min()).sum() > 1 and abs(value) < 6e4:
        assert found[0] % 2 == 0


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=50))
def test_order_keys_order_as_the_values_do(values):
    array = np.array(values, np.float32)
    keys = order_keys(array)
    assert np.array_equal(keys[:, None] < keys[None, :], array[:, None] < array[None, :])
    assert np.array_equal(values_of(keys), array)
