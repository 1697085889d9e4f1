"""How scales are found, and which matrices get them."""

from __future__ import annotations

import numpy as np
import pytest

from isotone.core.cluster import cluster
from isotone.core.float_format import FloatFormat
from isotone.core.scales.balancing import ScaleRule, choose_scales
from isotone.errors import InputError
from tests.builders.uneven import uneven

FORMATS = list(FloatFormat)


# -- how they are found ---------------------------------------------------------------------------


def chosen(array, rule, float_format=FloatFormat.F32, pieces=1):
    bits = float_format.downcast(array.astype(np.float32)).reshape(array.shape)
    cut = [part.reshape(-1) for part in np.array_split(bits, pieces)]
    return choose_scales(lambda: cut, array.shape, float_format, rule)


def spread_about_middle(codes, scales):
    """By how many codes scales differ from true ones, apart from a number that all share."""
    off = codes.astype(float) - 8 * np.log2(scales)
    return np.abs(off - np.median(off))


@pytest.mark.parametrize("float_format", FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_known_scales_are_recovered(float_format, seed):
    generator = np.random.default_rng(seed)
    row, column = np.exp(generator.normal(0, 0.7, 400)), np.exp(generator.normal(0, 0.9, 500))
    array = 0.03 * row[:, None] * generator.standard_normal((400, 500)) * column
    for rule in (ScaleRule.BOTH, ScaleRule.AUTO):
        found = chosen(array, rule, float_format)
        # A mean of 400 square roots of normal weights is off by 2.1 %, its square by 4.2 %, half a
        # code; rounding adds up to half a code, and the worst of 900 are 3.3 deviations off.
        for codes, scales in ((found.row, row), (found.column, column)):
            off = spread_about_middle(codes, scales)
            assert off.mean() <= 0.6
            assert off.max() <= 2.6


def test_row_scales_alone_are_those_of_the_rows():
    generator = np.random.default_rng(1)
    row = np.exp(generator.normal(0, 0.7, 300))
    array = row[:, None] * generator.standard_normal((300, 400))
    found = chosen(array, ScaleRule.ROW)
    assert found.column is None
    assert spread_about_middle(found.row, row).max() <= 2.6


@pytest.mark.parametrize("float_format", FORMATS)
def test_the_pieces_in_which_a_matrix_is_read_do_not_matter(float_format):
    array = np.random.default_rng(2).standard_t(3, (130, 90)) * np.exp2(np.arange(90) / 20)
    whole = chosen(array, ScaleRule.BOTH, float_format)
    codes = chosen(array, ScaleRule.BOTH, float_format, pieces=7)
    # Sums over rows are made for 64 rows at a time, so that a last digit may differ by the cut;
    # the codes are a hundred thousand times coarser.
    assert np.array_equal(whole.row, codes.row)
    assert np.array_equal(whole.column, codes.column)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_rows_that_are_multiplied_by_powers_of_four_change_nothing_but_their_codes(dtype):
    # sqrt(4^a x) = 2^a sqrt(x), and all sums over a row scale exactly.
    generator = np.random.default_rng(3)
    array = generator.standard_t(4, (64, 96)).astype(dtype)
    a = generator.integers(-3, 3, 64)
    scaled = (array * (4.0**a)[:, None].astype(dtype)).astype(dtype)
    if dtype == np.float16:  # what would not be exact in half precision is left out
        array[np.abs(array) < 0.02] = scaled[np.abs(array) < 0.02] = 0
    assert np.array_equal(scaled / (4.0**a)[:, None], array)
    for rule in ("row", "both"):
        one, other = cluster(array, 16, scale=rule), cluster(scaled, 16, scale=rule)
        assert np.array_equal(one.ranks, other.ranks)
        assert np.array_equal(one.protected_index, other.protected_index)
        shift = other.row_scale.astype(int) - one.row_scale
        assert len(set((shift - 16 * a).tolist())) == 1  # the unit that all rows share
        assert np.array_equal(one.dense() * (4.0**a)[:, None], other.dense()) or dtype == np.float16


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_rows_and_columns_multiplied_by_powers_of_two_are_taken_out(dtype):
    # Three passes leave a little of what the columns were multiplied by: codes differ by one at
    # most, ranks too, and what is lost is the same but for a few hundredths.
    generator = np.random.default_rng(4)
    array = (generator.standard_normal((200, 300)) + 0.01).astype(dtype)
    a, b = generator.integers(-2, 3, 200), generator.integers(-2, 3, 300)
    if dtype == np.float16:
        array[np.abs(array) < 0.02] = 0
    scaled = (array * (2.0**a)[:, None].astype(dtype)) * (2.0**b).astype(dtype)
    assert np.array_equal(scaled / (2.0**a)[:, None] / 2.0**b, array)
    one, other = cluster(array, 16, scale="both"), cluster(scaled, 16, scale="both")
    for found, plain, shift in (
        (other.row_scale, one.row_scale, a),
        (other.column_scale, one.column_scale, b),
    ):
        off = found.astype(int) - plain - 8 * shift
        assert np.abs(off - np.median(off)).max() <= 1
    assert np.abs(one.ranks.astype(int) - other.ranks).max() <= 1
    taken_out = other.dense() / (2.0**a)[:, None] / 2.0**b
    errors = [np.square(array.astype(float) - dense).sum() for dense in (one.dense(), taken_out)]
    assert errors[0] == pytest.approx(errors[1], rel=0.05)  # measured: 0.023


def test_the_divided_matrix_is_balanced():
    generator = np.random.default_rng(5)
    array = generator.standard_t(5, (300, 200)) * np.exp(generator.normal(0, 1, (300, 1)))
    array *= np.exp(generator.normal(0, 1, 200))
    scales = chosen(array, ScaleRule.BOTH)
    bits = array.astype(np.float32).view(np.uint32).reshape(-1)
    keys = scales.divider(FloatFormat.F32)(bits, 0).view(np.float16).astype(float)
    roots = np.sqrt(np.abs(keys.reshape(array.shape)))
    for axis in (0, 1):
        means = roots.mean(axis)
        # A code is off by 4.4 % at most, the root of it by 2.2 %; three passes leave less than 2 %.
        assert means.max() / means.min() <= 1.022**2 * 1.02


# -- where they are used --------------------------------------------------------------------------


SIZES = [(128, 128), (512, 128), (128, 512), (600, 700)]


def name_of(scales):
    return "none" if scales is None else "row" if scales.column is None else "both"


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_auto_takes_none_for_independent_normal_weights(shape, seed):
    array = uneven("normal", shape, seed)
    assert name_of(chosen(array, ScaleRule.AUTO)) == "none"


@pytest.mark.parametrize("kind", ["normal", "student", "uniform"])
@pytest.mark.parametrize("shape", SIZES)
def test_auto_takes_scales_of_both_for_uneven_columns(kind, shape):
    assert name_of(chosen(uneven(kind, shape, 1, 0.0, 0.6), ScaleRule.AUTO)) == "both"
    assert name_of(chosen(uneven(kind, shape, 1, 0.6, 0.6), ScaleRule.AUTO)) == "both"


@pytest.mark.parametrize("shape", SIZES)
def test_auto_takes_those_of_rows_for_uneven_rows(shape):
    assert name_of(chosen(uneven("normal", shape, 2, 0.6), ScaleRule.AUTO)) == "row"
    assert name_of(chosen(uneven("uniform", shape, 2, 0.6), ScaleRule.AUTO)) == "row"


@pytest.mark.parametrize("rule", list(ScaleRule))
def test_rules_read_back(rule):
    assert ScaleRule.parse(rule.value) is rule
    array = uneven("normal", (64, 64), 1, 1.0, 1.0)
    expected = "both" if rule is ScaleRule.AUTO else rule.value
    assert name_of(chosen(array, rule)) == expected


@pytest.mark.parametrize("text", ["", "BOTH", "column", "rows", "0", "None"])
def test_other_rules_are_refused(text):
    with pytest.raises(InputError, match="expected auto, none, row or both"):
        cluster(np.ones((2, 2), np.float32), 2, scale=text)
