"""Weights divided by their scales, and restored with them."""

from __future__ import annotations

import numpy as np
import pytest

from isotone import _native
from isotone.core.float_format import FloatFormat
from isotone.core.scales.codes import SCALES
from isotone.core.scales.scales import Scales
from tests.builders import second_reader

FORMATS = list(FloatFormat)


def values_in(float_format, generator, n):
    """Finite weights of a format as patterns, subnormal ones among them."""
    patterns = generator.integers(0, 1 << 8 * float_format.itemsize, n, dtype=np.uint32)
    patterns = patterns.astype(float_format.bits_dtype)
    with np.errstate(invalid="ignore"):  # a signalling NaN is upcast
        finite = np.isfinite(float_format.upcast(patterns))
    return np.where(finite, patterns, patterns[finite][0]).astype(float_format.bits_dtype)


@pytest.mark.parametrize("float_format", FORMATS)
@pytest.mark.parametrize("k", [1, 2, 15, 16, 17, 31, 32, 33, 100, 256])
@pytest.mark.parametrize("n_columns", [1, 7, 16, 33, 130])
def test_multiply_is_the_specification(float_format, k, n_columns):
    generator = np.random.default_rng(k * n_columns)
    n_rows = 6
    # Magnitudes from below the least subnormal half to beyond the largest one.
    codebook = np.sort(generator.standard_normal(k) * 2.0 ** generator.integers(-22, 12, k))
    codebook = codebook.astype(np.float32)
    row = SCALES[generator.integers(100, 160, n_rows)]
    column = SCALES[generator.integers(100, 160, n_columns)]
    ranks = generator.integers(0, k, n_rows * n_columns).astype(np.uint8)
    values = codebook[ranks].reshape(n_rows, n_columns) * row[:, None] * column
    expected = second_reader.rounded(values.reshape(-1), float_format.value)
    expected = expected.view(float_format.bits_dtype)
    for start in {0, 1, n_columns - 1, n_columns, 2 * n_columns + 1, n_rows * n_columns - 1}:
        for stop in {min(start + 3, len(ranks)), len(ranks)}:
            out = np.zeros(stop - start, float_format.bits_dtype)
            _native.multiply(
                ranks[start:stop], start, codebook, row, column, float_format.native, out.view("u1")
            )
            assert np.array_equal(out, expected[start:stop])


def test_multiply_has_every_case_of_half_precision():
    # The reference alone must reach them, or the comparison above would miss them.
    large = [6e4, 65504, 65519.99, 65520, 1e9]
    small = [1.0, 1 - 2.0**-12, 2.0**-10, 2.0**-11, 3 * 2.0**-11, 2.0**-11 + 2.0**-31, 1e-25]
    small = [2.0**-14 * value for value in small]
    values = np.array([*large, *small, 0.0, 1 + 2.0**-11, 1 + 3 * 2.0**-11], np.float32)
    values = np.concatenate([values, -values])
    for float_format in FORMATS:
        out = np.zeros(len(values), float_format.bits_dtype)
        codebook, one = values, np.ones(1, np.float32)
        ranks = np.arange(len(values), dtype=np.uint8)
        ones = np.ones(len(values), np.float32)
        _native.multiply(ranks, 0, codebook, one, ones, float_format.native, out.view("u1"))
        expected = second_reader.rounded(values, float_format.value)
        assert np.array_equal(out, expected.view(float_format.bits_dtype))
        assert np.isfinite(float_format.upcast(out)).all()


@pytest.mark.parametrize("float_format", [FloatFormat.BF16, FloatFormat.F32])
def test_products_are_clamped_to_the_largest_finite_value(float_format):
    # float32 itself overflows where a product does; just below that, bfloat16 would round up.
    largest = np.finfo(np.float32).max
    codebook = np.array([-largest, largest], np.float32)
    out = np.zeros(2, float_format.bits_dtype)
    ones = np.ones(2, np.float32)
    ranks = np.array([0, 1], np.uint8)
    _native.multiply(ranks, 0, codebook, ones[:1], ones, float_format.native, out.view("u1"))
    assert np.isfinite(float_format.upcast(out)).all()
    assert np.array_equal(out, float_format.downcast(codebook))


@pytest.mark.parametrize("float_format", FORMATS)
@pytest.mark.parametrize("n_columns", [1, 5, 16, 40])
def test_keys_are_quotients_in_half_precision_without_subnormal_ones(float_format, n_columns):
    generator = np.random.default_rng(n_columns)
    n_rows = 30
    bits = values_in(float_format, generator, n_rows * n_columns)
    wide = float_format.upcast(bits).reshape(n_rows, n_columns)
    inverse_row = SCALES[generator.integers(0, 256, n_rows)]
    inverse_column = SCALES[generator.integers(64, 192, n_columns)]
    with np.errstate(over="ignore"):  # what overflows is clamped
        quotients = (wide * inverse_row[:, None]) * inverse_column
    expected = np.clip(quotients, -65504, 65504).astype(np.float16)
    expected = np.where(np.abs(quotients) < 2.0**-14, np.float16(0), expected)
    expected = expected.reshape(-1).view(np.uint16)
    for start in (0, 1, n_columns, 3 * n_columns - 1):
        keys = np.empty(len(bits) - start, np.uint16)
        _native.divide(
            bits[start:].view("u1"), float_format.native, start, inverse_row, inverse_column, keys
        )
        assert np.array_equal(keys, expected[start:])


def test_what_scales_take_is_counted():
    codes = np.zeros(10, np.uint8)
    assert Scales(codes, None, 1.0, 10, 20).stored_bits == 80
    assert Scales(codes, np.zeros(20, np.uint8), 1.0, 10, 20).stored_bits == 240
