"""Where to write the names of points, so that they cover neither each other nor points nor lines.

Vega-Lite puts every text at one offset from its point. With panels of a known size and scale the
pixels are known beforehand, so places around each point, near and less near, are tried in the order
in which a reader looks for them, and the one that covers least is taken: point-feature labelling,
greedily (Christensen, Marks and Shieber 1995).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

FONT_SIZE = 13

_CHARACTER = 0.5 * FONT_SIZE  # on average, of a sans-serif
_LINE = 0.85 * FONT_SIZE  # the height of capitals with a little air
_POINT_RADIUS = 6.0
_OUTSIDE, _ON_LABEL, _ON_POINT, _ON_LINE = 1000.0, 100.0, 50.0, 6.0
_CROWDED = _ON_LINE


_Align = Literal["left", "center", "right"]
_Baseline = Literal["top", "middle", "bottom"]

# In pixels, in the order in which a reader looks for a name.
_AROUND: tuple[tuple[float, float, _Align, _Baseline], ...] = (
    (9, 0, "left", "middle"),
    (0, -9, "center", "bottom"),
    (7, -6, "left", "bottom"),
    (7, 6, "left", "top"),
    (-7, -6, "right", "bottom"),
    (-9, 0, "right", "middle"),
    (0, 9, "center", "top"),
    (-7, 6, "right", "top"),
)


@dataclass(frozen=True)
class Place:
    """Offset of a text from its point in pixels, and the corner or edge of it that lies there."""

    dx: float
    dy: float
    align: _Align
    baseline: _Baseline


PLACES = tuple(
    Place(round(dx * reach), round(dy * reach), align, baseline)
    for reach in (1.0, 1.9, 3.1)
    for dx, dy, align, baseline in _AROUND
)


@dataclass(frozen=True)
class Name:
    """A text that belongs at x, y (pixels); one that is not needed is left out in a crowd."""

    x: float
    y: float
    text: str
    needed: bool


@dataclass(frozen=True)
class Box:
    """What a text covers, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def holds(self, x: float, y: float, margin: float = 0.0) -> bool:
        """Whether a point lies in it, or as near as that."""
        return (
            self.left - margin < x < self.right + margin
            and self.top - margin < y < self.bottom + margin
        )

    def meets(self, other: Box) -> bool:
        """Whether the two overlap."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def place(
    names: Sequence[Name],
    size: tuple[float, float],
    points: Sequence[tuple[float, float]],
    lines: Sequence[Sequence[tuple[float, float]]],
    taken: Sequence[Box] = (),
) -> list[Place | None]:
    """A place for each name, None for one left out. The needed ones choose first.

    size: of the panel. points: their centres, those of the names among them. lines: through what
    pixels. taken: boxes of other texts.
    """
    on_lines = [pixel for line in lines for pixel in _along(line)]
    boxes = list(taken)
    places: list[Place | None] = [None] * len(names)
    for index in sorted(range(len(names)), key=lambda i: not names[i].needed):
        name = names[index]
        scored = [
            (_cost(box_of(name, at), size, points, on_lines, boxes) + rank, rank)
            for rank, at in enumerate(PLACES)
        ]
        cost, rank = min(scored)
        if name.needed or cost - rank <= _CROWDED:
            places[index] = PLACES[rank]
            boxes.append(box_of(name, PLACES[rank]))
    return places


def box_of(name: Name, at: Place) -> Box:
    """What a text covers when it is put at a place."""
    width = _CHARACTER * len(name.text)
    x, y = name.x + at.dx, name.y + at.dy
    left = {"left": x, "center": x - width / 2, "right": x - width}[at.align]
    top = {"top": y, "middle": y - _LINE / 2, "bottom": y - _LINE}[at.baseline]
    return Box(left, top, left + width, top + _LINE)


def _cost(
    box: Box,
    size: tuple[float, float],
    points: Sequence[tuple[float, float]],
    on_lines: Sequence[tuple[float, float]],
    boxes: Sequence[Box],
) -> float:
    width, height = size
    inside = box.left >= 0 and box.top >= 0 and box.right <= width and box.bottom <= height
    return (
        _OUTSIDE * (not inside)
        + _ON_LABEL * sum(box.meets(other) for other in boxes)
        + _ON_POINT * sum(box.holds(x, y, _POINT_RADIUS - 1) for x, y in points)
        + _ON_LINE * sum(box.holds(x, y, 1) for x, y in on_lines)
    )


def _along(line: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Points of a polyline, 6 pixels apart or less."""
    for (x0, y0), (x1, y1) in pairwise(line):
        n = 1 + int(max(abs(x1 - x0), abs(y1 - y0)) / 6)
        for step in range(n + 1):
            yield x0 + (x1 - x0) * step / n, y0 + (y1 - y0) * step / n
