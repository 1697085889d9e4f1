"""The native partition: the cheapest there is, and Lloyd iterations that never raise its cost."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotone import _native
from tests.builders.histograms import arrays_of, brute_force, cost_of_labels

# Costs are sums of prefix sums in float64: values here are at most 500 in size and weights 200 in
# all, so a difference of two of them is off by 2**-53 * 5e7 at most, where costs are 1 or more.
EXACT = 1e-9

grid = st.integers(-500, 500)
weights = st.dictionaries(grid, st.integers(1, 20), min_size=1, max_size=8)
COSTS = st.tuples(  # of a bit, a centroid, and a protected weight, in units of squared error
    st.sampled_from([0.1, 3.0, 200.0, 5_000.0, 1e5]),
    st.sampled_from([0.0, 10.0, 3_000.0, 1e6]),
    st.sampled_from([0.5, 40.0, 2_000.0, 1e5, math.inf]),
)


def partitioned(values, counts, costs):
    labels = np.full(len(values), 99, np.int32)
    _native.partition(values, counts, *costs, labels)
    return labels


@given(weights, COSTS)
def test_partition_equals_brute_force_with_any_values_protected(table, costs):
    values, counts = arrays_of(table)
    labels = partitioned(values, counts, costs)
    clustered = labels[labels >= 0]
    assert (np.diff(clustered) >= 0).all()
    assert np.array_equal(np.unique(clustered), np.arange(len(np.unique(clustered))))
    found, best = (
        cost_of_labels(values, counts, labels, costs),
        brute_force(values, counts, costs),
    )
    assert found <= best * (1 + EXACT) + EXACT
    assert best <= found * (1 + EXACT) + EXACT


def test_partition_checked_by_hand():
    # {0, 1, 9} once each, a bit at 1: apart they cost 3 log2 3 = 4.75; {0, 1} and {9}: an error of
    # 1/2 and 2 log2 1.5 + log2 3 = 2.75 bits, 3.25 together; all in one: 48.7.
    values, counts = np.array([0.0, 1.0, 9.0]), np.ones(3)
    assert partitioned(values, counts, (1.0, 0.0, math.inf)).tolist() == [0, 0, 1]
    # At 2.4 for a protected weight, {9} stays a cluster unless a centroid costs something.
    assert partitioned(values, counts, (1.0, 0.0, 2.4)).tolist() == [0, 0, 1]
    assert partitioned(values, counts, (1.0, 1.0, 2.4)).tolist() == [0, 0, -1]
    assert partitioned(values, counts, (1.0, 9.0, 2.4)).tolist() == [-1, -1, -1]


@given(weights, COSTS)
def test_a_count_costs_what_repetition_does(table, costs):
    values, counts = arrays_of(table)
    repeated = np.repeat(values, counts.astype(int))
    ones = np.ones(len(repeated))
    once = cost_of_labels(values, counts, partitioned(values, counts, costs), costs)
    again = cost_of_labels(repeated, ones, partitioned(repeated, ones, costs), costs)
    assert once == pytest.approx(again, rel=EXACT, abs=EXACT)


@given(
    st.dictionaries(grid, st.integers(1, 20), min_size=1, max_size=60),
    COSTS,
    st.data(),
)
def test_lloyd_iterations_never_raise_the_cost_and_return_that_of_their_labels(table, costs, data):
    values, counts = arrays_of(table)
    n = len(values)
    cuts = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    labels = np.cumsum(np.array(cuts) == 3).astype(np.int32)
    if math.isfinite(costs[2]):
        labels[np.array(cuts) == 1] = -1
    clustered = labels >= 0
    _, labels[clustered] = np.unique(labels[clustered], return_inverse=True)
    before = cost_of_labels(values, counts, labels, costs)
    after = labels.copy()
    returned = _native.lloyd_iterations(values, counts, *costs, after)
    found = cost_of_labels(values, counts, after, costs)
    assert returned == pytest.approx(found, rel=EXACT, abs=EXACT)
    assert found <= before * (1 + EXACT) + EXACT
    assert (np.diff(after[after >= 0]) >= 0).all()


@pytest.mark.parametrize(
    ("values", "costs", "start"),
    [
        # One cluster costs 60.7. With -9 protected the rest would, but for the bits that its ranks
        # then take: log2(3 / 2) each, and 200 a bit.
        ([-9, 0, 1], (200.0, 0.0, 40.0), [0, 0, 0]),
        ([-100, 0, 3, 6, 9], (500.0, 0.0, 900.0), [0, 0, 1, 1, 1]),
    ],
)
def test_lloyd_iterations_do_not_protect_what_makes_all_others_dearer(values, costs, start):
    values, labels = np.array(values, np.float64), np.array(start, np.int32)
    counts = np.ones(len(values))
    before = cost_of_labels(values, counts, labels, costs)
    returned = _native.lloyd_iterations(values, counts, *costs, labels)
    assert returned <= before * (1 + EXACT)
    assert cost_of_labels(values, counts, labels, costs) == pytest.approx(returned, rel=EXACT)
