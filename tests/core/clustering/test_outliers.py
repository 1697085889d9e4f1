"""Which weights are stored exactly, and that they come back exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotone.core.cluster import cluster
from isotone.core.clustering.outliers import Protection
from isotone.errors import InputError

# The distortion of a clustering is summed in float64, and its centroids rounded to float32.
ROUNDING = 1e-9


def matrix(seed, *shape, df=4):
    return np.random.default_rng(seed).standard_t(df, shape or (120, 150)).astype(np.float32)


def squared_errors(array, clustered):
    return np.square(array.astype(np.float64) - clustered.dense()).reshape(-1)


def test_off_is_the_plain_optimum_and_protects_nothing():
    array = matrix(0)
    off, nothing = cluster(array, 16, protect="off"), cluster(array, 16, protect="0")
    assert len(off.protected_index) == len(nothing.protected_index) == 0
    assert np.array_equal(off.codebook, nothing.codebook)
    for protect in ("auto", "0.001"):
        assert len(cluster(array, 16, protect=protect).protected_index) > 0


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("k", [2, 4])
def test_auto_protects_planted_super_weights(dtype, k):
    # With more centroids, a few outliers may keep one to themselves instead.
    array = np.random.default_rng(k).standard_normal((200, 300)).astype(dtype)
    planted = np.arange(10) * 5_001
    super_weights = np.array([30, -25, 41, -33, 57, 22, -47, 36, -28, 64], dtype)
    array.reshape(-1)[planted] = super_weights
    found = cluster(array, k)
    assert set(planted) <= set(found.protected_index.tolist())
    assert np.array_equal(found.dense().reshape(-1)[planted], super_weights)
    assert np.abs(found.codebook).max() < 6  # no centroid is drawn out to them


@pytest.mark.parametrize("k", [4, 16, 64])
@pytest.mark.parametrize("df", [2, 5])
def test_auto_protects_where_the_error_is_worth_the_bits(k, df):
    # The rule: 2 ln 2 * bits * mean squared error of the clustered weights; 16 bits for the
    # position, and 32.
    # Rounds end when 0.005 % of the choices still change, so its borders may be off a little.
    array = matrix(k, df=df)
    found = cluster(array, k)
    protected = np.zeros(array.size, bool)
    protected[found.protected_index] = True
    errors = squared_errors(array, found)
    limit = np.sqrt(2 * np.log(2) * 48 * errors[~protected].mean())
    centroids = found.codebook.astype(np.float64)
    distances = np.abs(array.reshape(-1, 1) - centroids[None, :]).min(1)
    misjudged = (distances > 1.02 * limit) & ~protected | (distances < 0.98 * limit) & protected
    assert protected.any()
    assert misjudged.mean() <= 1e-4


@pytest.mark.parametrize("fraction", [5e-5, 1e-4, 1e-3, 0.01, 0.05])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("seed", range(2))
def test_a_fraction_is_respected_and_goes_to_the_worst_errors(fraction, dtype, seed):
    array = matrix(seed, 300, 300).astype(dtype)
    found = cluster(array, 8, protect=str(fraction))
    n_protected = len(found.protected_index)
    assert n_protected <= fraction * array.size
    centroids = found.codebook.astype(np.float64)
    distances = np.abs(array.reshape(-1, 1).astype(np.float64) - centroids[None, :]).min(1)
    protected = np.zeros(array.size, bool)
    protected[found.protected_index] = True
    # The choice is made against the codebook of the round before, and rounds are few: measured,
    # up to 2 % of a large choice lie just inside the border.
    worst = np.argsort(-distances)[:n_protected]
    assert protected[worst].mean() >= 0.97
    # As many as there is room for: float16 leaves out the next value, which several weights share.
    assert n_protected >= fraction * array.size * (1 if dtype == np.float32 else 0.5) - 1


@given(st.integers(0, 10_000), st.integers(2, 32), st.sampled_from(["auto", "0.01", "0.001"]))
def test_protected_weights_come_back_exactly_and_no_distortion_is_added(seed, k, protect):
    generator = np.random.default_rng(seed)
    array = generator.standard_t(generator.uniform(1.5, 10), (30, 40)).astype(np.float32)
    found = cluster(array, k, protect=protect)
    assert (np.diff(found.protected_index) > 0).all()
    flat = array.reshape(-1)
    assert np.array_equal(found.protected_value.view(np.float32), flat[found.protected_index])
    assert np.array_equal(
        found.dense().reshape(-1)[found.protected_index], flat[found.protected_index]
    )
    plain = squared_errors(array, cluster(array, k, protect="off")).sum()
    assert squared_errors(array, found).sum() <= plain * (1 + ROUNDING)


@pytest.mark.parametrize("text", ["auto", "off", "0.001", "0.05", "1e-05"])
def test_rules_read_back_as_they_are_written(text):
    assert Protection.parse(str(Protection.parse(text))) == Protection.parse(text)


@pytest.mark.parametrize("text", ["", "on", "AUTO", "0.06", "-0.1", "nan", "inf", "1%", None])
def test_other_rules_are_refused(text):
    with pytest.raises(InputError, match=r"expected auto, off, or a fraction from 0 to 0\.05"):
        cluster(np.ones((2, 2), np.float32), 2, protect=text)


def test_the_weights_left_over_are_clustered_optimally():
    array = matrix(3)
    found = cluster(array, 16)
    rest = np.delete(array.reshape(-1), found.protected_index)[None, :]
    assert np.array_equal(found.codebook, cluster(rest, 16, protect="off").codebook)
