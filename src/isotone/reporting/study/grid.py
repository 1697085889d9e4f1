"""Panels in rows, and what all of them share.

Clicks on a legend reach a parameter of the first layer that has colours, and no other. So the first
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
    """Return the parameter that a click on the legend sets: the chosen families."""
    return alt.selection_point(fields=["family"], bind="legend", name="clicked")


def grid(charts: Sequence[alt.LayerChart], columns: int) -> alt.VConcatChart:
    """Put charts into rows, in the style of all charts.

    Parameters
    ----------
    charts : sequence of altair.LayerChart
        The panels.
    columns : int
        The panels in a row.

    Returns
    -------
    altair.VConcatChart
        The chart.
    """
    rows = [
        alt.hconcat(*charts[at : at + columns], spacing=34) for at in range(0, len(charts), columns)
    ]
    return styled(alt.vconcat(*rows, spacing=26))


def panel_width(n: int, total: int) -> int:
    """Return the width of each of several panels side by side.

    Parameters
    ----------
    n : int
        The number of panels.
    total : int
        The pixels of all together.

    Returns
    -------
    int
        The pixels of each.
    """
    return (total - _GAP * (n - 1)) // n


def data_chart(rows: Iterable[Mapping[str, Any]]) -> alt.Chart:
    """Return a chart that carries its rows.

    Parameters
    ----------
    rows : iterable of dict
        The rows.

    Returns
    -------
    altair.Chart
        The chart, without marks.
    """
    return alt.Chart(alt.InlineData(list(rows)))


def panel_title(text: str | None) -> alt.TitleParams:
    """Return the title of one panel among several.

    Parameters
    ----------
    text : str or None
        The title; None for no title.

    Returns
    -------
    altair.TitleParams
        The title.
    """
    return alt.TitleParams(
        text or "", fontSize=15, color=INK, fontWeight="bold", anchor="start", offset=8
    )


def log_channel(
    axis: LogAxis, title: str, *, field: str = "level", most: int = 9
) -> tuple[str, alt.Axis, alt.Scale]:
    """Return what a logarithmic channel is made of, for altair.X and altair.Y.

    Parameters
    ----------
    axis : LogAxis
        The axis.
    title : str
        The title of the axis; empty for none.
    field : str
        The field of the rows.
    most : int
        About how many ticks there may be.

    Returns
    -------
    shorthand : str
        The field with its type.
    ticks : altair.Axis
        The ticks and the title.
    scale : altair.Scale
        The scale.
    """
    ticks = alt.Axis(values=axis.ticks(most), format=",.10~g", title=title or None)
    return f"{field}:Q", ticks, axis.scale
