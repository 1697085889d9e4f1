"""The codes of scales."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotone.core.scales.codes import SCALES, UNITY, decode_scales, encode_scales
from tests.builders import second_reader


def test_codes_by_hand():
    # Code e is 2^((e - 128) / 8).
    by_hand = {128: 1.0, 136: 2.0, 120: 0.5, 132: 2**0.5, 0: 2.0**-16, 255: 2.0**15.875}
    for code, scale in by_hand.items():
        assert SCALES[code] == np.float32(scale)
        assert encode_scales(np.array([scale])) == [code]
    assert UNITY == 128
    # Half way to code 129 in the ratio is 2^(1/16) = 1.04427.
    assert encode_scales(np.array([1.0442, 1.0443])).tolist() == [128, 129]
    assert encode_scales(np.array([1e-30, 2.0**-17, 2.0**16, 1e30])).tolist() == [0, 0, 255, 255]


def test_codes_are_those_of_the_specification_and_ascend():
    codes = np.arange(256, dtype=np.uint8)
    assert np.array_equal(decode_scales(codes), second_reader.scales(codes))
    assert (np.diff(SCALES) > 0).all()
    assert np.array_equal(encode_scales(SCALES.astype(np.float64)), codes)


@given(st.lists(st.floats(2.0**-16, 2.0**15.8), min_size=1, max_size=50))
def test_codes_are_the_nearest_in_the_ratio_and_monotone(scales):
    scales = np.sort(np.array(scales))
    codes = encode_scales(scales)
    assert (np.diff(codes.astype(int)) >= 0).all()
    # Half a code, and 2**-24 for the rounding of a scale to float32.
    off = 8 * np.abs(np.log2(scales / decode_scales(codes)))
    assert off.max() <= 0.5 + 8 * 2.0**-23


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_scales_that_are_numbers_are_upcast(dtype):
    numbers = np.array([0.3, 1.0, 600.0], dtype)
    assert np.array_equal(decode_scales(numbers), numbers.astype(np.float32))
