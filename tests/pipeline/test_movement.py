"""How far centroids moved, in mean spacings of the codebook before: by hand, and in any unit."""

from __future__ import annotations

import numpy as np
import pytest

from isotone.pipeline.movement import Movement


def test_movement_by_hand():
    movement = Movement(np.float32([0, 1, 4]), np.float32([1, 1, 3]))
    assert movement.spacings.tolist() == [[0.5, 0.0, -0.5]]  # the mean spacing is (4 - 0) / 2
    assert movement.root_mean_square == pytest.approx((0.5 / 3) ** 0.5, rel=1e-15)
    assert movement.farthest == 0.5
    stack = Movement(np.float32([[0, 1], [-2, 2]]), np.float32([[0, 2], [-4, 2]]))
    assert stack.spacings.tolist() == [[0.0, 1.0], [-0.5, 0.0]]
    assert stack.root_mean_square == pytest.approx((1.25 / 4) ** 0.5, rel=1e-15)


@pytest.mark.parametrize(
    ("before", "after", "spacings"),
    [(-2, -1, 0.5), (2, 1, -0.5), (0, 3, 3.0), (0, 0, 0.0), (1, 1, 0.0)],
)
def test_a_single_centroid_is_measured_by_its_magnitude(before, after, spacings):
    movement = Movement(np.float32([before]), np.float32([after]))
    assert movement.spacings.tolist() == [[spacings]]


def test_movement_is_the_same_in_any_unit():
    before, after = np.float32([-1, 0, 3]), np.float32([-2, 1, 4])
    moved = Movement(before, after).spacings
    assert np.array_equal(Movement(4 * before, 4 * after).spacings, moved)
    assert np.array_equal(Movement(before + 8, after + 8).spacings, moved)
    largest = np.float32([-3e38, 0, 3e38])  # whose spacings float32 could not hold
    assert Movement(largest, -largest[::-1]).spacings.tolist() == [[0.0, 0.0, 0.0]]
