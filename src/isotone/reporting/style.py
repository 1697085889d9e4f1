"""The look of charts: a colour and a shape for each family, quiet axes, text that can be shrunk.

Colours keep a contrast of 4.5 to white, since names are written in them too, and the first three
stay apart for every common kind of colour blindness.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

INK, FAINT = "#22262b", "#5f666e"

_LINE_COLORS = (
    "#0b5cbd",
    "#c24e00",
    "#6a7079",
    "#8039a8",
    "#007d6e",
    "#c2255c",
    "#7a5200",
    "#4d7200",
)
_PEER_COLORS = ("#007d6e", "#c2255c", "#7a5200", "#4338a8", "#4d7200", "#93401f")
_PEER_SHAPES = ("diamond", "square", "cross", "triangle-down", "triangle-right", "triangle-left")


def family_scales(points: Sequence[Mapping[str, Any]]) -> tuple[alt.Color, alt.Shape]:
    """Return the scales of the field `family`, which share one legend: first swept, then baselines.

    Parameters
    ----------
    points : sequence of dict
        Points with `family` and `kind`, "swept" or "peer".

    Returns
    -------
    color : altair.Color
        The colours.
    shape : altair.Shape
        The shapes.
    """
    swept = list(dict.fromkeys(p["family"] for p in points if p["kind"] == "swept"))
    peers = list(dict.fromkeys(p["family"] for p in points if p["kind"] == "peer"))
    peers = [family for family in peers if family not in swept]
    colors = _cycled(_LINE_COLORS, len(swept)) + _cycled(_PEER_COLORS, len(peers))
    shapes = ["circle"] * len(swept) + _cycled(_PEER_SHAPES, len(peers))
    legend = alt.Legend(title=None, orient="top", symbolSize=140, columns=7, columnPadding=24)
    domain = swept + peers
    return (
        alt.Color("family:N", scale=alt.Scale(domain=domain, range=colors), legend=legend),
        alt.Shape("family:N", scale=alt.Scale(domain=domain, range=shapes), legend=legend),
    )


def styled(chart: alt.VConcatChart) -> alt.VConcatChart:
    """Give a chart the look of all charts.

    Parameters
    ----------
    chart : altair.VConcatChart
        The chart, which is changed.

    Returns
    -------
    altair.VConcatChart
        The same chart.
    """
    chart.config = alt.Config(
        font="Helvetica, Arial, sans-serif",
        background="white",
        padding=16,
        view=alt.ViewConfig(stroke=None),
        title=alt.TitleConfig(
            anchor="start",
            fontSize=22,
            color=INK,
            subtitleFontSize=15,
            subtitleColor=FAINT,
            offset=12,
        ),
        axis=alt.AxisConfig(
            labelFontSize=14,
            titleFontSize=15,
            titleFontWeight="normal",
            labelColor=INK,
            titleColor=INK,
            gridColor="#e8eaed",
            domainColor="#9aa0a6",
            tickColor="#9aa0a6",
            titlePadding=10,
            labelFlush=False,
            format="~g",
            tickCount=8,
        ),
        legend=alt.LegendConfig(
            labelFontSize=15,
            labelColor=INK,
            labelLimit=320,
            offset=8,
        ),
    )
    return chart


def _cycled(values: Sequence[str], n: int) -> list[str]:
    return [values[index % len(values)] for index in range(n)]
