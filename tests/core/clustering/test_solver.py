"""The solver finds the best clustering there is."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotone.core.cluster import cluster
from isotone.core.clustering.solver import nearest, solve
from isotone.core.histogram import Histogram, order_keys
from isotone.errors import InputError
from tests.builders.histograms import histogram_of

# Costs come from prefix sums of squares about the median, each rounded to 53 bits; a sum of n of
# them is off by at most n * 2**-53 of the largest, and n stays below 4,000 in these tests.
ROUNDING = 1e-12

# A codebook is rounded to float32: moving a centroid c by c * 2**-24 costs that squared, for each
# weight.
FLOAT32 = 2.0**-24

grid = st.integers(-500, 500)
weights = st.dictionaries(grid, st.integers(1, 20), min_size=1, max_size=9)
arrays = st.lists(grid, min_size=1, max_size=200)


def exact_cost(values, counts):
    """The weighted squared error of one cluster, without rounding."""
    values, counts = [Fraction(v) for v in values], [Fraction(int(c)) for c in counts]
    mean = sum(v * c for v, c in zip(values, counts, strict=True)) / sum(counts)
    return sum(c * (v - mean) ** 2 for v, c in zip(values, counts, strict=True))


def cost_of_runs(histogram, starts):
    ends = [*starts[1:], len(histogram)]
    runs = [slice(start, end) for start, end in zip(starts, ends, strict=True)]
    return sum(exact_cost(histogram.values[run], histogram.counts[run]) for run in runs)


def brute_force(histogram, k):
    """The least cost of any cut into k runs, by trying them all."""
    cuts = combinations(range(1, len(histogram)), min(k, len(histogram)) - 1)
    return min(cost_of_runs(histogram, [0, *inner]) for inner in cuts)


def second_moment(histogram):
    middle = histogram.values[len(histogram) // 2]
    return float(histogram.counts @ (histogram.values - middle) ** 2)


@given(weights, st.integers(2, 6))
def test_equals_brute_force_over_contiguous_partitions(table, k):
    histogram = histogram_of(table)
    found = cost_of_runs(histogram, list(solve(histogram, k).starts))
    assert found - brute_force(histogram, k) <= ROUNDING * second_moment(histogram)


@given(
    st.dictionaries(
        st.floats(width=32, allow_nan=False, allow_infinity=False),
        st.integers(1, 20),
        min_size=1,
        max_size=8,
    ),
    st.integers(2, 5),
)
def test_equals_brute_force_at_any_magnitude(table, k):
    histogram = histogram_of({value + 0.0: count for value, count in table.items()})
    found = cost_of_runs(histogram, list(solve(histogram, k).starts))
    assert found - brute_force(histogram, k) <= ROUNDING * second_moment(histogram)


def lloyd(values, counts, centroids):
    for _ in range(100):
        ranks = np.abs(values[:, None] - centroids[None, :]).argmin(1)
        filled = np.bincount(ranks, counts, len(centroids)) > 0
        sums = np.bincount(ranks, counts * values, len(centroids))
        totals = np.bincount(ranks, counts, len(centroids))
        centroids = np.where(filled, sums / np.maximum(totals, 1), centroids)
    return float(counts @ np.square(values[:, None] - centroids[None, :]).min(1))


@pytest.mark.parametrize("k", [2, 5, 16])
def test_never_worse_than_lloyd_from_random_starts(k):
    generator = np.random.default_rng(k)
    values = np.unique(generator.standard_t(3, 800).astype(np.float32)).astype(np.float64)
    counts = generator.integers(1, 50, len(values))
    histogram = Histogram.exact(order_keys(values.astype(np.float32)), values, counts)
    found = float(cost_of_runs(histogram, list(solve(histogram, k).starts)))
    for _ in range(10):
        start = generator.choice(values, k, replace=False)
        assert found <= lloyd(values, counts, start) + ROUNDING * second_moment(histogram)


@given(
    arrays, st.integers(2, 8), st.sampled_from([2.0**-6, 0.5, 2.0, 2.0**20]), st.integers(-999, 999)
)
def test_equivariant_under_scaling_and_shifting(values, k, factor, shift):
    # All numbers here are exact in float32 and the factor is a power of two, so that every
    # intermediate result scales without rounding: even ties fall the same way.
    array = np.array(values, np.float32)[None, :]
    plain, moved = cluster(array, k), cluster(np.float32(factor) * (array + shift), k)
    assert np.array_equal(plain.ranks, moved.ranks)
    expected = factor * (plain.codebook.astype(np.float64) + shift)
    tolerance = 2 * FLOAT32 * factor * 1500  # one rounding of each codebook, values up to 1,500
    assert np.abs(moved.codebook - expected).max() <= tolerance


@given(arrays, st.integers(2, 8), st.sampled_from([3.0, 0.1, 7.3]))
def test_distortion_scales_with_the_square_of_any_factor(values, k, factor):
    histogram = histogram_of({v: values.count(v) for v in values})
    scaled = Histogram.exact(histogram.keys, factor * histogram.values, histogram.counts)
    one, other = (float(cost_of_runs(p, list(solve(p, k).starts))) for p in (histogram, scaled))
    assert abs(factor**2 * one - other) <= 10 * ROUNDING * second_moment(scaled)


@given(weights, st.integers(2, 6), st.randoms(use_true_random=False))
def test_an_integer_weight_is_repetition(table, k, random):
    repeated = [value for value, count in table.items() for _ in range(count)]
    random.shuffle(repeated)
    counted = solve(histogram_of(table), k)
    found = cluster(np.array([repeated], np.float32), k, protect="off")
    assert np.array_equal(found.codebook, counted.codebook)
    assert np.array_equal(found.ranks[0], nearest(counted.codebook, np.array(repeated, "f8")))


@given(arrays, st.integers(2, 256), st.sampled_from([np.float16, np.float32]))
def test_no_distortion_where_k_reaches_the_distinct_values(values, k, dtype):
    array = np.array(values, dtype)[:, None]
    found = cluster(array, k)
    if k >= len(set(values)):
        assert found.k == len(set(values))
        assert np.array_equal(found.dense(), array.astype(np.float32))
    else:
        assert found.k == k


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=60),
    st.integers(2, 20),
)
def test_codebook_is_strictly_ascending_and_ranks_are_nearest(values, k):
    array = np.array(values, np.float32)[None, :]
    found = cluster(array, k, protect="off")
    codebook = found.codebook.astype(np.float64)
    assert (np.diff(codebook) > 0).all()
    distances = np.abs(array.astype(np.float64)[0, :, None] - codebook[None, :])
    assert np.array_equal(found.ranks[0], distances.argmin(1))  # the smaller of two as near
    assert found.counts.sum() == array.size


@pytest.mark.parametrize("outlier", [1e4, 3e38, -3e38])
def test_an_enormous_outlier_takes_a_centroid_and_leaves_the_rest_alone(outlier):
    rest = np.random.default_rng(1).standard_normal((1, 3000)).astype(np.float32)
    array = np.append(rest, np.float32(outlier))[None, :]
    found, expected_rest = cluster(array, 8, protect="off"), cluster(rest, 7, protect="off")
    expected = np.append(expected_rest.codebook, np.float32(outlier))
    assert np.array_equal(found.codebook, np.sort(expected))


@given(arrays, st.integers(2, 8), st.randoms(use_true_random=False))
def test_the_order_of_the_weights_does_not_matter(values, k, random):
    order = list(range(len(values)))
    random.shuffle(order)
    array = np.array(values, np.float32)
    plain, shuffled = cluster(array[None, :], k), cluster(array[None, order], k)
    assert np.array_equal(plain.codebook, shuffled.codebook)
    assert np.array_equal(plain.ranks[:, order], shuffled.ranks)


@pytest.mark.parametrize("k", [1, 0, -3, 257, 1 << 40])
def test_k_outside_of_2_to_256_is_refused(k):
    with pytest.raises(InputError, match=f"k is {k}; expected 2 to 256"):
        cluster(np.ones((2, 2), np.float32), k)


def test_hand_checked():
    # {1, 2} and {10, 11, 12, 12}: their means are 3 / 2 and 45 / 4.
    found = cluster(np.array([[12, 1, 10], [2, 11, 12]], np.float32), 2)
    assert found.codebook.tolist() == [1.5, 11.25]
    assert found.ranks.tolist() == [[1, 0, 1], [0, 1, 1]]
    assert found.counts.tolist() == [2, 4]
