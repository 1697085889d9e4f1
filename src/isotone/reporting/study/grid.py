"""Panels in rows, and what all of them share.

Clicks on a legend reach a parameter of the first layer that has colours, and no other: so the first
panel of a chart adds it, in that layer, and all marks of all panels are filtered by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt

from isotone.reporting.axis import LogAxis
from isotone.reporting.style import INK, styled

WIDTH, HEIGHT = 960, 400
"""Pixels of a chart's panels together, and of each from top to bottom."""

_GAP = 56


def legend_choice() -> alt.Parameter:
    """What a click on the legend chooses: families."""
    return alt.selection_point(fields=["family"], bind="legend", name="clicked")


def grid(charts: Sequence[alt.LayerChart], columns: int) -> alt.VConcatChart:
    """Charts in rows, in the style of all charts."""
    rows = [
        alt.hconcat(*charts[at : at + columns], spacing=34) for at in range(0, len(charts), columns)
    ]
    return styled(alt.vconcat(*rows, spacing=26))


def panel_width(n: int, total: int) -> int:
    """Of each of n panels side by side."""
    return (total - _GAP * (n - 1)) // n


def data_chart(rows: Iterable[Mapping[str, Any]]) -> alt.Chart:
    """A chart over rows that it carries along."""
    return alt.Chart(alt.InlineData(list(rows)))


def panel_title(text: str | None) -> alt.TitleParams:
    """Of one panel among several."""
    return alt.TitleParams(
        text or "", fontSize=15, color=INK, fontWeight="bold", anchor="start", offset=8
    )


def log_channel(
    axis: LogAxis, title: str, *, field: str = "level", most: int = 9
) -> tuple[str, alt.Axis, alt.Scale]:
    """Shorthand, axis and scale of a logarithmic channel, for alt.X and alt.Y; most: ticks."""
    ticks = alt.Axis(values=axis.ticks(most), format=",.10~g", title=title or None)
    return f"{field}:Q", ticks, axis.scale
