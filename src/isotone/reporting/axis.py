"""A logarithmic axis that shows a part of its values; what lies beyond is drawn at its edge."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import altair as alt

_STEPS = ((1, 1.2, 1.5, 2, 3, 5, 7), (1, 2, 5), (1,))  # ticks in a decade

_EDGE = 0.045  # of the length, from the end: where what lies beyond is drawn


def edge_of(low: float, high: float, *, upper: bool = True) -> float:
    """Return the value at which to draw what lies beyond an end of a logarithmic axis.

    Parameters
    ----------
    low, high : float
        The ends of the axis, both positive.
    upper : bool
        Whether it lies beyond the upper end, or else beyond the lower one.

    Returns
    -------
    float
        A value a little inside of the end.
    """
    room = math.pow(low / high, _EDGE)
    return high * room if upper else low / room


@dataclass(frozen=True)
class LogAxis:
    """A logarithmic axis, and which values it shows.

    Attributes
    ----------
    low, high : float
        The ends of the axis, both positive.
    limit : float
        Values above it are drawn at the upper edge.
    floor : float
        Values below it are drawn at the lower edge.
    """

    low: float
    high: float
    limit: float
    floor: float = 0.0

    def level(self, value: float) -> float:
        """Return the value at which to draw a value.

        Parameters
        ----------
        value : float
            Any value; infinity is drawn at the upper edge.

        Returns
        -------
        float
            A value that the axis shows.
        """
        if value > self.limit:
            return edge_of(self.low, self.high)
        if value < self.floor:
            return edge_of(self.low, self.high, upper=False)
        return value

    def is_beyond(self, value: float) -> bool:
        """Return whether a value is drawn at the upper edge, as a triangle.

        Parameters
        ----------
        value : float
            Any value.

        Returns
        -------
        bool
            Whether it is above the limit.
        """
        return value > self.limit

    @property
    def scale(self) -> alt.Scale:
        """The scale as Vega-Lite takes it."""
        return alt.Scale(type="log", domain=[self.low, self.high], nice=False)

    def ticks(self, most: int = 9) -> list[float]:
        """Return ticks: powers of ten, and on a short axis round values between them.

        Parameters
        ----------
        most : int
            About how many ticks there may be.

        Returns
        -------
        list of float
            The ticks, ascending; 1 is among them where the axis shows it.
        """
        decades = math.log10(self.high / self.low)
        steps = next((steps for steps in _STEPS if len(steps) * decades < most), _STEPS[-1])
        stride = 1 + int(decades // most)
        start = math.floor(math.log10(self.low)) // stride * stride  # so that 1 is among them
        powers = range(start, math.ceil(math.log10(self.high)) + 1, stride)
        values = [float(f"{step}e{power}") for power in powers for step in steps]
        return [value for value in values if self.low <= value <= self.high]


def fit_axis(
    values: Iterable[float], *, most: float, least: float = 0.0, always: Iterable[float] = ()
) -> LogAxis:
    """Return the axis that shows all positive values of a range, with room for those beyond.

    Parameters
    ----------
    values : iterable of float
        The values to draw.
    most : float
        Larger values are drawn at the upper edge.
    least : float
        Values up to it are drawn at the lower edge.
    always : iterable of float
        Further values that the axis shows.

    Returns
    -------
    LogAxis
        The axis.
    """
    values = list(values)
    shown = [*always, *(value for value in values if least < value <= most)] or [1.0]
    low, high = min(shown), max(shown)
    high = max(high, 1.3 * low)
    above, below = any(v > most for v in values), any(v <= least for v in values)
    room = high / low
    return LogAxis(
        low / math.pow(room, 0.14 if below else 0.05),
        high * math.pow(room, 0.14 if above else 0.05),
        limit=most,
        floor=least,
    )
