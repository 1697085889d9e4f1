"""The frontier as a chart: perplexity and divergence over measured bits per weight.

Swept families are lines; what others measured stands beside them as symbols with names. A point so
bad that it would squash the axis is a triangle at the upper edge, with its figure written there.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from isotone.reporting.frontier.labels import FONT_SIZE, OFFSETS, Box, Label, place_labels
from isotone.reporting.frontier.panel import HEIGHT, WIDTH, Panel, fit_panel, is_drawn
from isotone.reporting.style import FAINT, family_scales, styled

Points = Sequence[Mapping[str, Any]]
Row = dict[str, Any]

WORST_PERPLEXITY = 2.0
"""The most that the axis shows, in times the dense model's, unless half of the points exceed it."""

WORST_KL = 2.0
"""The same for divergence, in nats per token."""

_CAPTION_WIDTH = 185  # characters that surely fit below both panels

_FIGURES = {
    "bits_per_weight": ("bits per weight", "{:.3f}"),
    "perplexity": ("perplexity", "{:,.2f}"),
    "perplexity_standard_error": ("its standard error", "{:,.2f}"),
    "kl": ("KL from dense", "{:.4f}"),
    "top1_agreement": ("same top token", "{:.1%}"),
    "relative_distortion": ("relative error", "{:.2e}"),
    "output_bytes": ("bytes of the model", "{:,}"),
    "seconds": ("seconds to compress", "{:.1f}"),
}
"""The figures of a tooltip: keys of the points, their titles and their formats."""


def frontier_chart(points: Points, *, title: str, caption: str) -> alt.VConcatChart:
    """Draw two panels over bits per weight, with a legend that filters and a caption below.

    Families of kind "swept" are joined by lines; baselines (kind "peer") are not. What cannot be
    drawn is named in the caption.

    Parameters
    ----------
    points : sequence of dict
        Records with `kind` ("dense", "swept" or "peer"), `family`, `label`, `bits_per_weight`,
        `perplexity` and `kl`, of which the last two may be None. Other figures go into the
        tooltips.
    title : str
        The title of the chart.
    caption : str
        The text below it.

    Returns
    -------
    altair.VConcatChart
        The chart.
    """
    dense = [p["perplexity"] for p in points if p["kind"] == "dense" and p["perplexity"]][:1]
    found = [p["perplexity"] for p in points if is_drawn(p, "perplexity")]
    worst = WORST_PERPLEXITY * min(dense or found or [1.0])
    panels = (
        fit_panel("perplexity", "perplexity", points, limit=worst, lines=dense),
        fit_panel("kl", "KL divergence from dense, nats per token", points, limit=WORST_KL),
    )
    families = family_scales(points)
    clicked = alt.selection_point(fields=["family"], bind="legend", name="clicked")
    drawn = alt.hconcat(
        _panel_chart(panels[0], points, families, clicked, dense),
        _panel_chart(panels[1], points, families, clicked, []),
        spacing=34,
    )
    heading = alt.TitleParams(
        title,
        subtitle="Lower and further left is better. Bits are measured on disk; "
        "the vertical axes are logarithmic.",
    )
    return styled(
        alt.vconcat(drawn, _text_below([caption, *_notes(points, panels)]), spacing=14).properties(
            title=heading
        )
    )


def protocol_caption(point: Mapping[str, Any]) -> str:
    """Return a caption that says what the points were measured on.

    Parameters
    ----------
    point : dict
        A point of the sweep with its `protocol`.

    Returns
    -------
    str
        The caption.
    """
    protocol = point["protocol"]
    n_windows = point["n_tokens"] // (protocol["context"] - 1)
    parts = [
        f"{protocol['text']}, {n_windows} windows of {protocol['context']:,} tokens, "
        f"{protocol['dtype']}."
    ]
    parts += [f"Each window begins with {' '.join(bos)}."] if (bos := protocol.get("bos")) else []
    for what, key in (("Clustered: only", "include"), ("Kept dense:", "exclude")):
        parts += [f"{what} {', '.join(protocol[key])}."] if protocol[key] else []
    parts.append(
        "Bits per weight: all bytes that the clustered weights take on disk (ranks, codebooks, "
        f"scales, protected weights), by their number. isotone {protocol['isotone']}."
    )
    return " ".join(parts)


def _panel_chart(
    panel: Panel,
    points: Points,
    families: tuple[alt.Color, alt.Shape],
    clicked: alt.Parameter,
    dense: Sequence[float],
) -> alt.LayerChart:
    """Return the marks of one measure; they zoom and move together."""
    rows = [_row(point, panel) for point in points if is_drawn(point, panel.key)]
    color, shape = families
    x = alt.X("bits:Q", title="bits per weight", scale=alt.Scale(domain=list(panel.bits)))
    y = alt.Y("level:Q", title=panel.title, scale=alt.Scale(type="log", domain=list(panel.domain)))
    base = _chart(rows).encode(x, y, color, tooltip=_tooltip()).transform_filter(clicked)
    lines = base.transform_filter("datum.swept && !datum.beyond")
    zoom = alt.selection_interval(bind="scales", name=f"zoom_{panel.key}")
    shared = [clicked] if panel.key == "perplexity" else []  # once in a chart, for all panels
    layers = [
        *_dense_layers(dense, y),
        # Clicks on the legend reach a parameter of the first layer that has colours, and no other.
        lines.mark_line(clip=True, strokeWidth=2.5, tooltip=None).add_params(zoom, *shared),
        *_name_layers(panel, rows, dense, base),
        base.transform_filter("datum.beyond").mark_point(
            clip=True, filled=True, size=150, opacity=1, shape="triangle-up"
        ),
        base.transform_filter("!datum.beyond")
        .encode(shape)
        .mark_point(clip=True, filled=True, size=100, opacity=1),
    ]
    return alt.LayerChart(layer=layers, width=WIDTH, height=HEIGHT)


def _row(point: Mapping[str, Any], panel: Panel) -> Row:
    """Return what the marks need of a point; the figures of the tooltip as text."""
    value = point[panel.key]
    beyond = value > panel.limit
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return {
        "family": point["family"],
        "label": point["label"],
        "bits": point["bits_per_weight"],
        "value": value,
        "level": panel.level(value),
        "beyond": beyond,
        "swept": point["kind"] == "swept",
        "name": f"{point['label']}: {shown}" if beyond else point["label"],
        "figures": {key: _figure(point.get(key), form) for key, (_, form) in _FIGURES.items()},
        "note": str(point.get("note") or "–"),
    }


def _figure(value: object, form: str) -> str:
    return form.format(value) if isinstance(value, int | float) else "–"


def _tooltip() -> list[alt.Tooltip]:
    figures = [(f"figures.{key}", name) for key, (name, _) in _FIGURES.items()]
    names = [("family", "family"), ("label", "label"), *figures, ("note", "note")]
    return [alt.Tooltip(f"{field}:N", title=title) for field, title in names]


def _dense_layers(dense: Sequence[float], y: alt.Y) -> list[alt.Chart]:
    """Return the dense model's perplexity as a dashed line across the panel."""
    base = _chart([{"level": value, "name": f"dense {value:,.2f}"} for value in dense])
    rule = base.encode(y).mark_rule(clip=True, strokeDash=[7, 5], color=FAINT, strokeWidth=1.5)
    name = base.encode(y, text="name:N", x=alt.value(WIDTH - 6))
    text = name.mark_text(align="right", dy=11, color=FAINT, fontSize=FONT_SIZE, clip=True)
    return [rule, text] if dense else []


def _name_layers(
    panel: Panel, rows: Sequence[Row], dense: Sequence[float], base: alt.Chart
) -> list[alt.Chart]:
    """Return the names beside points, in one layer for each offset that is used."""
    pixels = [panel.pixel(row["bits"], row["value"]) for row in rows]
    names = [
        Label(*pixel, row["name"], needed=not row["swept"] or row["beyond"])
        for pixel, row in zip(pixels, rows, strict=True)
    ]
    levels = [panel.pixel(panel.bits[0], value)[1] for value in dense]
    rules = [[(0.0, level), (float(WIDTH), level)] for level in levels]
    taken = [Box(WIDTH - 95, level + 3, WIDTH, level + 19) for level in levels]
    lines = [*_lines(rows, pixels), *rules]
    chosen = place_labels(names, (WIDTH, HEIGHT), pixels, lines, taken)
    layers = []
    for at in OFFSETS:
        here = [row for row, its in zip(rows, chosen, strict=True) if its == at]
        if here:
            text = base.properties(data=alt.InlineData(here)).encode(text="name:N")
            layers.append(
                text.mark_text(
                    clip=True,
                    dx=at.dx,
                    dy=at.dy,
                    align=at.align,
                    baseline=at.baseline,
                    fontSize=FONT_SIZE,
                )
            )
    return layers


def _lines(
    rows: Sequence[Row], pixels: Sequence[tuple[float, float]]
) -> list[list[tuple[float, float]]]:
    """Return the pixels that the lines of the swept families go through."""
    through: dict[str, list[tuple[float, float]]] = {}
    for row, pixel in zip(rows, pixels, strict=True):
        if row["swept"] and not row["beyond"]:
            through.setdefault(row["family"], []).append(pixel)
    return [sorted(line) for line in through.values()]


def _notes(points: Points, panels: Sequence[Panel]) -> list[str]:
    """Return what the reader must know of points that are not where their figures are."""
    notes = []
    if any(
        is_drawn(p, panel.key) and p[panel.key] > panel.limit for p in points for panel in panels
    ):
        notes.append("Triangles at the upper edge lie beyond it, at the figure beside them.")
    missing = [f"{p['family']}, {p['label']}" for p in points if p["perplexity"] is None]
    if missing:
        notes.append(f"Not drawn, without a finite perplexity: {'; '.join(missing)}.")
    return notes


def _text_below(paragraphs: Sequence[str]) -> alt.Chart:
    lines = [line for text in paragraphs for line in textwrap.wrap(text, _CAPTION_WIDTH)] or [""]
    block = alt.Chart(
        alt.InlineData([{"text": lines}]), width=2 * WIDTH + 90, height=18 * len(lines)
    )
    chart: alt.Chart = block.encode(text="text:N", x=alt.value(0), y=alt.value(0)).mark_text(
        align="left", baseline="top", fontSize=13, lineHeight=18, color=FAINT
    )
    return chart


def _chart(rows: Sequence[Row]) -> alt.Chart:
    return alt.Chart(alt.InlineData(list(rows)))
