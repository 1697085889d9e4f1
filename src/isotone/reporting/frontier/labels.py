"""Where to write the names of points, so that they cover neither each other nor points nor lines.

Vega-Lite writes every text at one offset from its point. With panels of a known size and scale the
pixels are known beforehand, so offsets around each point, near and less near, are tried in the
order in which a reader looks for a name, and the one that covers least is taken: greedy
point-feature labelling.

References
----------
J. Christensen, J. Marks, S. Shieber. An empirical study of algorithms for point-feature label
placement. ACM Transactions on Graphics 14(3), 1995.
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
class LabelOffset:
    """The offset of a text from its point, and the part of the text that lies there.

    Attributes
    ----------
    dx, dy : float
        The offset in pixels, to the right and downwards.
    align : "left", "center" or "right"
        The horizontal part of the text at the offset.
    baseline : "top", "middle" or "bottom"
        The vertical part of the text at the offset.
    """

    dx: float
    dy: float
    align: _Align
    baseline: _Baseline


OFFSETS = tuple(
    LabelOffset(round(dx * reach), round(dy * reach), align, baseline)
    for reach in (1.0, 1.9, 3.1)
    for dx, dy, align, baseline in _AROUND
)


@dataclass(frozen=True)
class Label:
    """A text that belongs to a point.

    Attributes
    ----------
    x, y : float
        The point, in pixels.
    text : str
        The text.
    needed : bool
        Whether the text is written in a crowd too.
    """

    x: float
    y: float
    text: str
    needed: bool


@dataclass(frozen=True)
class Box:
    """What a text covers, in pixels.

    Attributes
    ----------
    left, top, right, bottom : float
        The edges.
    """

    left: float
    top: float
    right: float
    bottom: float

    def holds(self, x: float, y: float, margin: float = 0.0) -> bool:
        """Return whether a point lies in the box, or within a margin of it.

        Parameters
        ----------
        x, y : float
            The point, in pixels.
        margin : float
            The margin, in pixels; a negative one shrinks the box.

        Returns
        -------
        bool
            Whether it does.
        """
        return (
            self.left - margin < x < self.right + margin
            and self.top - margin < y < self.bottom + margin
        )

    def meets(self, other: Box) -> bool:
        """Return whether two boxes overlap.

        Parameters
        ----------
        other : Box
            The other box.

        Returns
        -------
        bool
            Whether they do.
        """
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def place_labels(
    labels: Sequence[Label],
    size: tuple[float, float],
    points: Sequence[tuple[float, float]],
    lines: Sequence[Sequence[tuple[float, float]]],
    taken: Sequence[Box] = (),
) -> list[LabelOffset | None]:
    """Choose an offset for each label; the needed ones choose first.

    Parameters
    ----------
    labels : sequence of Label
        The labels.
    size : (float, float)
        The width and height of the panel, in pixels.
    points : sequence of (float, float)
        The centres of all points, those of the labels among them, in pixels.
    lines : sequence of sequence of (float, float)
        The pixels that each line goes through.
    taken : sequence of Box
        The boxes of other texts.

    Returns
    -------
    list of LabelOffset or None
        The offset of each label; None for one that is left out.

    Notes
    -----
    The cost is quadratic in the number of labels.
    """
    on_lines = [pixel for line in lines for pixel in _along(line)]
    boxes = list(taken)
    offsets: list[LabelOffset | None] = [None] * len(labels)
    for index in sorted(range(len(labels)), key=lambda i: not labels[i].needed):
        label = labels[index]
        scored = [
            (_cost(box_of(label, at), size, points, on_lines, boxes) + rank, rank)
            for rank, at in enumerate(OFFSETS)
        ]
        cost, rank = min(scored)
        if label.needed or cost - rank <= _CROWDED:
            offsets[index] = OFFSETS[rank]
            boxes.append(box_of(label, OFFSETS[rank]))
    return offsets


def box_of(label: Label, at: LabelOffset) -> Box:
    """Return what a text covers when it is written at an offset.

    Parameters
    ----------
    label : Label
        The text and its point.
    at : LabelOffset
        The offset.

    Returns
    -------
    Box
        The box, from an estimate of the text's width.
    """
    width = _CHARACTER * len(label.text)
    x, y = label.x + at.dx, label.y + at.dy
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
    """Yield points of a polyline that are 6 pixels apart or less."""
    for (x0, y0), (x1, y1) in pairwise(line):
        n = 1 + int(max(abs(x1 - x0), abs(y1 - y0)) / 6)
        for step in range(n + 1):
            yield x0 + (x1 - x0) * step / n, y0 + (y1 - y0) * step / n
