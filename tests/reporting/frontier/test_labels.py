"""Names of points, placed so that they cover nothing."""

from __future__ import annotations

import pytest

from isotone.reporting.frontier.labels import OFFSETS, Label, box_of, place_labels
from isotone.reporting.frontier.panel import HEIGHT, WIDTH


def test_names_cover_nothing_where_there_is_room():
    at = [(60.0 + 90 * i, 60.0 + 90 * j) for i in range(4) for j in range(4)]
    names = [Label(x, y, "K = 16", needed=False) for x, y in at]
    places = place_labels(names, (WIDTH, HEIGHT), at, [at[:4]])
    boxes = [box_of(name, its) for name, its in zip(names, places, strict=True)]
    assert not any(a.meets(b) for a in boxes for b in boxes if a is not b)
    assert not any(box.holds(x, y) for box in boxes for x, y in at)


def test_in_a_crowd_only_the_needed_names_stay():
    at = [(100.0 + 4 * i, 100.0) for i in range(40)]
    names = [Label(x, y, "a long name", needed=i == 20) for i, (x, y) in enumerate(at)]
    places = place_labels(names, (WIDTH, HEIGHT), at, [])
    assert places[20] in OFFSETS
    assert None in places


@pytest.mark.parametrize("x", [2.0, WIDTH - 2.0])
@pytest.mark.parametrize("y", [25.0, HEIGHT - 25.0])
def test_names_stay_inside(x, y):
    (its,) = place_labels([Label(x, y, "a long name", needed=True)], (WIDTH, HEIGHT), [(x, y)], [])
    box = box_of(Label(x, y, "a long name", needed=True), its)
    assert 0 <= box.left < box.right <= WIDTH
    assert 0 <= box.top < box.bottom <= HEIGHT
