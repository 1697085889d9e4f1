"""Factors of rows and columns: their codes, how they are found, where they are used, what for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from isotone import _native
from isotone.core.cluster import cluster
from isotone.core.float_format import FloatFormat
from isotone.core.scales.balancing import ScaleRule, Scales, choose_scales
from isotone.core.scales.codes import SCALES, UNITY, decode_scales, encode_scales
from isotone.errors import InputError
from isotone.pipeline.compress import compress
from isotone.pipeline.verify import verify
from tests.builders import second_reader
from tests.builders.checkpoints import Bf16, write_model

FORMATS = list(FloatFormat)


# -- codes ----------------------------------------------------------------------------------------


def test_codes_by_hand():
    # Code e is 2^((e - 128) / 8).
    by_hand = {128: 1.0, 136: 2.0, 120: 0.5, 132: 2**0.5, 0: 2.0**-16, 255: 2.0**15.875}
    for code, factor in by_hand.items():
        assert SCALES[code] == np.float32(factor)
        assert encode_scales(np.array([factor])) == [code]
    assert UNITY == 128
    # Half way to code 129 in the ratio is 2^(1/16) = 1.04427.
    assert encode_scales(np.array([1.0442, 1.0443])).tolist() == [128, 129]
    assert encode_scales(np.array([1e-30, 2.0**-17, 2.0**16, 1e30])).tolist() == [0, 0, 255, 255]


def test_codes_are_those_of_the_specification_and_ascend():
    codes = np.arange(256, dtype=np.uint8)
    assert np.array_equal(decode_scales(codes), second_reader.factors(codes))
    assert (np.diff(SCALES) > 0).all()
    assert np.array_equal(encode_scales(SCALES.astype(np.float64)), codes)


@given(st.lists(st.floats(2.0**-16, 2.0**15.8), min_size=1, max_size=50))
def test_codes_are_the_nearest_in_the_ratio_and_monotone(factors):
    factors = np.sort(np.array(factors))
    codes = encode_scales(factors)
    assert (np.diff(codes.astype(int)) >= 0).all()
    # Half a code, and 2**-24 for the rounding of a factor to float32.
    off = 8 * np.abs(np.log2(factors / decode_scales(codes)))
    assert off.max() <= 0.5 + 8 * 2.0**-23


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_factors_that_are_numbers_are_widened(dtype):
    numbers = np.array([0.3, 1.0, 600.0], dtype)
    assert np.array_equal(decode_scales(numbers), numbers.astype(np.float32))


# -- products and quotients -----------------------------------------------------------------------


def values_in(float_format, generator, n):
    """Finite weights of a format as patterns, subnormal ones among them."""
    patterns = generator.integers(0, 1 << 8 * float_format.itemsize, n, dtype=np.uint32)
    patterns = patterns.astype(float_format.bits_dtype)
    with np.errstate(invalid="ignore"):  # a signalling NaN is widened
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


# -- how they are found ---------------------------------------------------------------------------


def chosen(array, rule, float_format=FloatFormat.F32, pieces=1):
    bits = float_format.downcast(array.astype(np.float32)).reshape(array.shape)
    cut = [part.reshape(-1) for part in np.array_split(bits, pieces)]
    return choose_scales(lambda: cut, array.shape, float_format, rule)


def spread_about_middle(codes, factors):
    """By how many codes found factors differ from true ones, the factor that all share left out."""
    off = codes.astype(float) - 8 * np.log2(factors)
    return np.abs(off - np.median(off))


@pytest.mark.parametrize("float_format", FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_known_factors_are_recovered(float_format, seed):
    generator = np.random.default_rng(seed)
    row, column = np.exp(generator.normal(0, 0.7, 400)), np.exp(generator.normal(0, 0.9, 500))
    array = 0.03 * row[:, None] * generator.standard_normal((400, 500)) * column
    for rule in (ScaleRule.BOTH, ScaleRule.AUTO):
        found = chosen(array, rule, float_format)
        # A mean of 400 square roots of normal weights is off by 2.1 %, its square by 4.2 %, half a
        # code; rounding adds up to half a code, and the worst of 900 are 3.3 deviations off.
        for codes, factors in ((found.row, row), (found.column, column)):
            off = spread_about_middle(codes, factors)
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


def uneven(kind, shape, seed, sigma_row=0.0, sigma_column=0.0):
    generator = np.random.default_rng(seed)
    inner = {
        "normal": generator.standard_normal(shape),
        "student": generator.standard_t(4, shape),
        "uniform": generator.uniform(-1, 1, shape),
    }[kind]
    inner *= np.exp(generator.normal(0, sigma_row, (shape[0], 1)))
    return (0.02 * inner * np.exp(generator.normal(0, sigma_column, shape[1]))).astype(np.float32)


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
def test_auto_takes_factors_of_both_for_uneven_columns(kind, shape):
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


def test_what_factors_take_is_counted():
    codes = np.zeros(10, np.uint8)
    assert Scales(codes, None, 1.0, 10, 20).stored_bits == 80
    assert Scales(codes, np.zeros(20, np.uint8), 1.0, 10, 20).stored_bits == 240


# -- what they do ---------------------------------------------------------------------------------


def column_errors(array, dense):
    """The mean over columns of a column's squared error over its sum of squares."""
    array = array.astype(np.float64)
    return float((np.square(array - dense).sum(0) / np.square(array).sum(0)).mean())


def compressed_and_restored(array, folder, **options):
    """What comes back of one matrix through files, and its measured bits."""
    model = write_model(folder / "model", {"a.weight": array})
    summary = compress(model, folder / "out", workers=1, **options)
    assert verify(folder / "out", against=model, workers=1).ok
    tag, dense = second_reader.read_directory(folder / "out")["a.weight"]
    if tag == "BF16":
        dense = (dense.astype("<u4") << 16).view("<f4")
    return dense.astype(np.float64), summary


@pytest.mark.parametrize("kind", ["normal", "student"])
def test_the_default_helps_small_columns_at_equal_bytes(kind, tmp_path):
    # What a column's weights are worth does not depend on their size: a following layer's inputs
    # may be as large as its columns are small. Measured: 0.079 to 0.012, and 0.056 to 0.011.
    array = uneven(kind, (384, 640), 3, 0.2, 0.9)
    found = {}
    for scale in ("none", "auto"):
        dense, summary = compressed_and_restored(
            array, tmp_path / scale, bits=3.5, scale=scale, method="entropy"
        )
        found[scale] = column_errors(array, dense), summary.bits_per_weight
    assert found["auto"][1] == pytest.approx(found["none"][1], rel=0.01)
    assert found["auto"][0] < 0.5 * found["none"][0], found


@pytest.mark.parametrize("kind", ["normal", "student"])
def test_the_default_costs_even_matrices_next_to_nothing(kind, tmp_path):
    array = uneven(kind, (384, 640), 4)
    errors = {}
    for scale in ("none", "auto"):
        dense, _ = compressed_and_restored(array, tmp_path / scale, bits=3.5, scale=scale)
        errors[scale] = np.square(array - dense).sum()
    # 1,024 codes of a byte are 0.033 bits a weight, which is 4.7 % of error at most.
    assert errors["auto"] <= errors["none"] * 1.05


# -- matrices of every odd kind -------------------------------------------------------------------


def plain(shape=(60, 80), seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def with_zeros(array):
    array[5], array[:, 7] = 0.0, 0.0
    return array


def with_outlier(value):
    array = plain()
    array[31, 17] = value
    return array


ODD = {
    "zeros": np.zeros((40, 50)),
    "zero rows and columns": with_zeros(plain()),
    "one weight that is not zero": np.where(np.arange(4800).reshape(60, 80) == 999, 5.0, 0.0),
    "one row": plain((1, 2000)),
    "one column": plain((2000, 1)),
    "constant": np.full((40, 50), 0.3),
    "constant rows": np.repeat(plain((60, 1)), 80, axis=1),
    "three distinct values": np.random.default_rng(1).choice([-1.0, 0.0, 0.5], (60, 80)),
    "cauchy": np.random.default_rng(2).standard_cauchy((60, 80)),
    "one outlier": with_outlier(3e4),
    "one huge outlier": with_outlier(1e30),
    "tiny": plain() * 1e-30,
    "huge": plain() * 1e30,
    "tiny and huge rows": plain() * np.where(np.arange(60) < 30, 1e-15, 1e15)[:, None],
    "all magnitudes": plain() * 2.0 ** np.random.default_rng(3).integers(-40, 40, (60, 80)),
    "subnormal": plain() * 1e-42,
    "largest": np.clip(plain(), -1, 1) * 3.3e38,
}


def kept_by(format_name, array):
    """Whether a format has the range for an array."""
    largest, least = {"F16": (6.5e4, 1e-3)}.get(format_name, (3.4e38, 0.0))
    size = np.abs(array[array != 0]) if array.any() else np.ones(1)
    return size.max() <= largest and np.median(size.astype(float)) >= least


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("scale", ["row", "both", "auto"])
def test_odd_matrices_are_clustered_with_any_factors(name, scale):
    array = ODD[name].astype(np.float32)
    for protect in ("auto", "off"):
        found = cluster(array, 16, scale=scale, protect=protect)
        dense = found.dense()
        assert dense.shape == array.shape
        assert np.isfinite(dense).all()
        assert (np.diff(found.codebook) > 0).all()
        flat = array.reshape(-1)[found.protected_index]
        assert np.array_equal(dense.reshape(-1)[found.protected_index], flat)
    if name == "zeros":
        assert not dense.any()


@pytest.mark.parametrize("name", [name for name in ODD if "one w" not in name])
@pytest.mark.parametrize("scale", ["row", "both", "auto"])
def test_odd_matrices_keep_their_size_with_any_factors(name, scale):
    # Whatever the factors do, what comes back is not worse than a matrix of zeros by far: not even
    # for a matrix that consists of one outlier, for all that its squares say.
    array = ODD[name].astype(np.float64)
    if not array.any():
        return
    dense = cluster(array.astype(np.float32), 16, scale=scale).dense()
    assert np.square(array - dense).sum() <= 0.2 * np.square(array).sum()


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("scale", ["both", "auto"])
def test_odd_matrices_survive_files(name, scale, tmp_path):
    # At F32, and in 16 bits where the format has the range.
    array = ODD[name].astype(np.float32)
    tensors = {"f32.weight": array, "ordinary.weight": plain((64, 64), 9).astype(np.float32)}
    if kept_by("BF16", array):
        tensors["bf16.weight"] = Bf16(array)
    if kept_by("F16", array):
        tensors["f16.weight"] = array.astype("<f2")
    if 1 not in array.shape:
        tensors["experts.weight"] = np.stack([array, array[::-1]])
    else:  # a matrix of one row or one column is kept as it is; as a stack it is clustered
        tensors["experts.weight"] = np.stack([array, array])
    model = write_model(tmp_path / "model", tensors)
    for options in ({"bits": 3.0}, {"k": 16}):
        out = tmp_path / next(iter(options))
        summary = compress(model, out, scale=scale, workers=2, **options)
        assert 0 < summary.bits_per_weight < 32
        found = verify(out, against=model, workers=2)
        assert (found.ok, found.failures) == (True, ())
        for tag, dense in second_reader.read_directory(out).values():
            wide = (dense.astype("<u4") << 16).view("<f4") if tag == "BF16" else dense
            assert np.isfinite(wide).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scale", ["row", "both", "auto"])
@pytest.mark.parametrize("options", [{"k": 16}, {"bits": 4.0}])
def test_nan_and_infinity_are_refused_by_name(bad, scale, options, tmp_path):
    array = plain((64, 64)).astype(np.float32)
    array[3, 5] = array[60, 0] = bad
    for i, tensor in enumerate((array, Bf16(array), array.astype("<f2"))):
        model = write_model(tmp_path / f"model{i}", {"h.0.up.weight": tensor})
        with pytest.raises(InputError, match=r"h\.0\.up\.weight: 2 of its weights are NaN or inf"):
            compress(model, tmp_path / f"out{i}", scale=scale, **options)
    with pytest.raises(InputError, match="the array: 2 of its weights are NaN or inf"):
        cluster(array, 4, scale=scale)


@given(
    st.integers(0, 10_000),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.sampled_from(["row", "both", "auto"]),
    st.sampled_from([np.float16, np.float32]),
)
@example(0, (1, 1), "both", np.float32)
def test_any_small_matrix_comes_back_finite_and_near(seed, shape, scale, dtype):
    generator = np.random.default_rng(seed)
    array = generator.standard_t(3, shape) * 2.0 ** generator.integers(-6, 4, shape)
    array = np.where(generator.random(shape) < 0.2, 0, array).astype(dtype)
    found = cluster(array, 256, scale=scale, protect="off")
    # 256 values for up to 144 keys: each comes back but for the 11 bits of its key, as long as it
    # is not below 2^-14 of what is usual in its row and column.
    error = np.abs(found.dense() - array.astype(np.float64))
    assert (error <= 2.0**-10 * np.abs(array) + 2.0**-8 * np.abs(array).max() * 2.0**-4).all()
