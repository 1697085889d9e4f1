"""One measure over bits per weight: the range that is shown, and the position of each point."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isotone.reporting.axis import edge_of

WIDTH, HEIGHT = 540, 430  # pixels


@dataclass(frozen=True)
class Panel:
    """A panel of the frontier; bits are linear, values are logarithmic.

    Attributes
    ----------
    key : str
        The key of the measure in the points.
    title : str
        The title of the vertical axis.
    bits, domain : (float, float)
        The parts of the horizontal and the vertical axis that are shown.
    limit : float
        Points of larger values, which would squash all others, lie at the upper edge.
    """

    key: str
    title: str
    bits: tuple[float, float]
    domain: tuple[float, float]
    limit: float

    def level(self, value: float) -> float:
        """Return the value at which to draw a point.

        Parameters
        ----------
        value : float
            The measured value.

        Returns
        -------
        float
            A value that the axis shows.
        """
        return edge_of(*self.domain) if value > self.limit else value

    def pixel(self, bits: float, value: float) -> tuple[float, float]:
        """Return where a point comes to lie.

        Parameters
        ----------
        bits, value : float
            The coordinates of the point.

        Returns
        -------
        x, y : float
            Pixels from the upper left corner of the panel.
        """
        left, right = self.bits
        low, high = self.domain
        y = HEIGHT * (1 - math.log(self.level(value) / low) / math.log(high / low))
        return WIDTH * (bits - left) / (right - left), y


def fit_panel(
    key: str,
    title: str,
    points: Sequence[Mapping[str, Any]],
    *,
    limit: float,
    lines: Sequence[float] = (),
) -> Panel:
    """Return the panel that shows all points with a positive value up to a limit.

    Parameters
    ----------
    key : str
        The key of the measure in the points.
    title : str
        The title of the vertical axis.
    points : sequence of dict
        The points.
    limit : float
        The largest value to show. Where at least half of the points of kind "swept" are beyond it,
        it is raised to show them.
    lines : sequence of float
        Further values to show.

    Returns
    -------
    Panel
        The panel.
    """
    drawn = [point for point in points if is_drawn(point, key)]
    swept = [point[key] for point in drawn if point["kind"] == "swept"]
    limit = max(limit, 1.1 * statistics.median(swept or [0.0]))
    values = [*lines, *(point[key] for point in drawn if point[key] <= limit)]
    low, high = min(values, default=limit / 2), max(values, default=limit)
    high = max(high, 1.2 * low)
    room = high / low  # below for the dense model's name, above for the points at the edge
    bits = [point["bits_per_weight"] for point in drawn] or [2.0, 8.0]
    return Panel(
        key,
        title,
        (math.floor(4 * min(bits) - 0.6) / 4, math.ceil(4 * max(bits) + 1.6) / 4),
        (low / math.pow(room, 0.09), high * math.pow(room, 0.13)),
        limit,
    )


def is_drawn(point: Mapping[str, Any], key: str) -> bool:
    """Return whether a point has a place on a logarithmic axis; the dense model is a line instead.

    Parameters
    ----------
    point : dict
        The point.
    key : str
        The key of the measure.

    Returns
    -------
    bool
        Whether it has.
    """
    return point["kind"] != "dense" and point[key] is not None and point[key] > 0
