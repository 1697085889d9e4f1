"""A panel of runs as points, with lines through their medians.

What is beyond the axis, a collapsed model above all, is a triangle at its upper edge, as on the
frontier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import altair as alt

from isotone.reporting.study.formatting import Row, run_tooltips
from isotone.reporting.study.grid import (
    HEIGHT,
    WIDTH,
    data_chart,
    grid,
    legend_choice,
    panel_title,
    panel_width,
)
from isotone.reporting.style import FAINT

Channel = alt.Color | alt.Shape | alt.StrokeDash

UP, DOWN, RIGHT = "up", "down", "right"
"""The edge of a panel at which a run is drawn that lies beyond it; "" for all others."""


@dataclass(frozen=True)
class LinePanel:
    """Runs as points, and lines over x through what is typical of them.

    Attributes
    ----------
    name : str
        The name of the panel, which must differ from those of other panels.
    title : str or None
        The title above it.
    rows : sequence of dict
        The points, with `family`, `x`, `level`, `beyond` and the texts of the tooltips.
    lines : sequence of dict
        What the lines go through, with `family`, `x` and `level`; `detail` separates lines of one
        family.
    x : altair.X
        The horizontal channel.
    y : altair.Y
        The vertical channel.
    channels : sequence of altair.Color, altair.Shape and altair.StrokeDash
        The other channels; shapes are for points, dashes for lines.
    rules : sequence of (float, str)
        Levels with a name, drawn as dashed lines across the panel.
    names : sequence of dict
        Texts beside the lines, with `family`, `x`, `level` and `name`.
    tips : sequence of altair.Tooltip
        The tooltip of the points.
    threads : bool
        Whether the points of one `thread` are joined by a thin line.
    size : int
        The area of a point, in square pixels.
    """

    name: str
    title: str | None
    rows: Sequence[Row]
    lines: Sequence[Row]
    x: alt.X
    y: alt.Y
    channels: Sequence[Channel]
    rules: Sequence[tuple[float, str]] = ()
    names: Sequence[Row] = ()
    tips: Sequence[alt.Tooltip] = field(default_factory=run_tooltips)
    threads: bool = False
    size: int = 34

    def draw(self, legend: alt.Parameter, *, first: bool, size: tuple[int, int]) -> alt.LayerChart:
        """Draw the panel.

        Parameters
        ----------
        legend : altair.Parameter
            What a click on the legend sets; the first panel of a chart adds it.
        first : bool
            Whether this is the first panel of its chart.
        size : (int, int)
            The width and height, in pixels.

        Returns
        -------
        altair.LayerChart
            The marks.
        """
        # Dashes are for lines: a shape is for points.
        for_lines = [c for c in self.channels if not isinstance(c, alt.Shape)]
        for_points = [c for c in self.channels if not isinstance(c, alt.StrokeDash)]
        zoom = alt.selection_interval(bind="scales", name=f"zoom_{self.name}")
        points = self._base(self.rows).encode(*for_points, tooltip=list(self.tips))
        points = points.transform_filter(legend)
        medians = self._base(self.lines).encode(*for_lines, alt.Detail("detail:N"))
        line = medians.transform_filter(legend).mark_line(clip=True, strokeWidth=2.8, tooltip=None)
        # Altair gives one name to all views that differ in their data alone, and mixes them up, so
        # each has a name of its own. A number at its end would be replaced by the column's.
        line = line.properties(name=f"{self.name}_lines")
        layers = [
            *self._rule_layers(),
            line.add_params(zoom, *([legend] if first else [])),
            *self._thread_layers(legend, for_lines),
            points.transform_filter("!datum.beyond").mark_point(
                clip=True, filled=True, size=self.size, opacity=0.5
            ),
            *self._edge_layers(points),
            *self._name_layers(legend, for_lines),
        ]
        title = panel_title(self.title)
        return alt.LayerChart(layer=layers, width=size[0], height=size[1], title=title)

    def _base(self, rows: Sequence[Row]) -> alt.Chart:
        return data_chart(rows).encode(self.x, self.y)

    def _edge_layers(self, points: alt.Chart) -> list[alt.Chart]:
        edges = sorted({row["beyond"] for row in self.rows} - {""})
        return [
            points.transform_filter(f"datum.beyond == '{edge}'")
            .encode(shape=alt.ShapeValue(f"triangle-{edge}"))
            .mark_point(clip=True, filled=True, size=80, opacity=0.75)
            for edge in edges
        ]

    def _name_layers(self, legend: alt.Parameter, channels: Sequence[Channel]) -> list[alt.Chart]:
        colors = [channel for channel in channels if isinstance(channel, alt.Color)]
        base = self._base(self.names).encode(*colors, text="name:N").transform_filter(legend)
        # Lines and rules go on below the text, so it has a white outline.
        white = base.mark_text(
            align="left", dx=5, fontSize=11, stroke="white", strokeWidth=4, strokeJoin="round"
        )
        return [white, base.mark_text(align="left", dx=5, fontSize=11)] if self.names else []

    def _thread_layers(self, legend: alt.Parameter, channels: Sequence[Channel]) -> list[alt.Chart]:
        if not self.threads:
            return []
        base = self._base(self.rows).encode(*channels, alt.Detail("thread:N"))
        filtered = base.transform_filter(legend)
        return [filtered.mark_line(clip=True, strokeWidth=1, opacity=0.45, tooltip=None)]

    def _rule_layers(self) -> list[alt.Chart]:
        rows = [{"level": level, "name": name} for level, name in self.rules]
        base = data_chart(rows).encode(self.y)
        rule = base.mark_rule(clip=True, strokeDash=[7, 5], color=FAINT, strokeWidth=1.5)
        text = base.encode(text="name:N", x=alt.value("width"))
        name = text.mark_text(
            align="right", baseline="top", dx=-4, dy=4, color=FAINT, fontSize=12, clip=True
        )
        return [rule, name] if rows else []


def line_grid(
    panels: Sequence[LinePanel], *, columns: int, height: int = HEIGHT, total: int = WIDTH
) -> alt.VConcatChart:
    """Draw panels of equal widths in rows.

    Parameters
    ----------
    panels : sequence of LinePanel
        The panels.
    columns : int
        The panels in a row.
    height : int
        The pixels of a panel from top to bottom.
    total : int
        The pixels of a row.

    Returns
    -------
    altair.VConcatChart
        The chart.
    """
    width = panel_width(min(columns, len(panels)), total)
    legend = legend_choice()
    drawn = [
        panel.draw(legend, first=index == 0, size=(width, height))
        for index, panel in enumerate(panels)
    ]
    return grid(drawn, columns)
