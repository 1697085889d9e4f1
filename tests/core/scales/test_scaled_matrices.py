"""What scales do for whole matrices, those of every odd kind included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from isotone.core.cluster import cluster
from isotone.errors import InputError
from isotone.pipeline.compress import compress
from isotone.pipeline.verify import verify
from tests.builders import second_reader
from tests.builders.checkpoints import Bf16, write_model
from tests.builders.uneven import uneven


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
def test_odd_matrices_are_clustered_with_any_scales(name, scale):
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
def test_odd_matrices_keep_their_size_with_any_scales(name, scale):
    # Whatever the scales do, what comes back is not worse than a matrix of zeros by far: not even
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
