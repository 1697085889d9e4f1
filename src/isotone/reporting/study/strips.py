"""A panel of runs as ticks along a logarithmic axis, with a strip for each group of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from isotone.reporting.axis import LogAxis
from isotone.reporting.study.formatting import (
    Row,
    median_tooltips,
    ratio_text,
    run_tooltips,
    tooltip_row,
)
from isotone.reporting.study.grid import (
    WIDTH,
    data_chart,
    grid,
    legend_choice,
    panel_title,
    panel_width,
)
from isotone.reporting.study.runs import MeasuredRun, geometric_median
from isotone.reporting.style import FAINT

_INSIDE, _BEYOND = "!datum.beyond", "datum.beyond"

Naming = Callable[[MeasuredRun], str]


def strip_rows(
    runs: Sequence[MeasuredRun], axis: LogAxis, *, family: Naming, group: Naming
) -> list[Row]:
    """Return the ticks of runs, for StripPanel.

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs.
    axis : LogAxis
        The axis of the perplexity ratio.
    family, group : callable
        The family and the group of a run.

    Returns
    -------
    list of dict
        The rows.
    """
    return [
        {
            **tooltip_row(run),
            "family": family(run),
            "group": group(run),
            "level": axis.level(run.perplexity_ratio),
            "beyond": axis.is_beyond(run.perplexity_ratio),
        }
        for run in runs
    ]


def strip_medians(
    runs: Sequence[MeasuredRun], axis: LogAxis, *, family: Naming, group: Naming
) -> list[Row]:
    """Return what is typical of each family in each group, for StripPanel.

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs.
    axis : LogAxis
        The axis of the perplexity ratio.
    family, group : callable
        The family and the group of a run.

    Returns
    -------
    list of dict
        The rows.
    """
    by_place: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        by_place.setdefault((family(run), group(run)), []).append(run.perplexity_ratio)
    found = {place: (geometric_median(ratios), len(ratios)) for place, ratios in by_place.items()}
    return [
        {
            "family": name,
            "group": its_group,
            "level": axis.level(ratio),
            "beyond": axis.is_beyond(ratio),
            "damage": ratio_text(ratio),
            "n": n,
        }
        for (name, its_group), (ratio, n) in found.items()
    ]


@dataclass(frozen=True)
class StripPanel:
    """Runs as ticks along a logarithmic axis, a strip for each group, and their medians.

    Attributes
    ----------
    name : str
        The name of the panel, which must differ from those of other panels.
    title : str or None
        The title above it.
    rows, medians : sequence of dict
        The ticks and the medians, with `family`, `group`, `level` and `beyond`.
    groups : sequence of str
        The groups, from top to bottom.
    x : altair.X
        The horizontal channel.
    channels : sequence of altair.Color
        The colours.
    labelled : bool
        Whether the names of the groups are written.
    offset : bool
        Whether the families of a group lie one above another.
    step : int
        The pixels of a strip.
    """

    name: str
    title: str | None
    rows: Sequence[Row]
    medians: Sequence[Row]
    groups: Sequence[str]
    x: alt.X
    channels: Sequence[alt.Color]
    labelled: bool
    offset: bool = False
    step: int = 26

    def draw(self, legend: alt.Parameter, *, first: bool, width: int) -> alt.LayerChart:
        """Draw the panel.

        Parameters
        ----------
        legend : altair.Parameter
            What a click on the legend sets; the first panel of a chart adds it.
        first : bool
            Whether this is the first panel of its chart.
        width : int
            The width, in pixels.

        Returns
        -------
        altair.LayerChart
            The marks.
        """
        axis = alt.Axis(
            grid=True,
            labelExpr="datum.value",  # the numbers' format would be tried on names
            labelLimit=420,
            labels=self.labelled,
            ticks=False,
            title=None,
        )
        # All groups, also those without a run here, since the labels serve the other panels too.
        y = alt.Y("group:N", axis=axis, scale=alt.Scale(domain=list(self.groups)), sort=None)
        places: list[Any] = [self.x, y]
        if self.offset:
            order = list(dict.fromkeys(row["family"] for row in self.medians))
            places.append(alt.YOffset("family:N", sort=order))
        zoom = alt.selection_interval(bind="scales", encodings=["x"], name=f"zoom_{self.name}")
        rule = alt.Chart(alt.InlineData([{"level": 1.0}])).encode(x=self.x)
        layers = [
            rule.mark_rule(strokeDash=[7, 5], color=FAINT, strokeWidth=1.5, clip=True),
            *self._tick_layers(places, legend, [zoom, *([legend] if first else [])]),
            *self._median_layers(places, legend),
        ]
        height = self.step * len(self.groups)
        title = panel_title(self.title)
        return alt.LayerChart(layer=layers, width=width, height=height, title=title)

    def _tick_layers(
        self, places: Sequence[Any], legend: alt.Parameter, params: Sequence[alt.Parameter]
    ) -> list[alt.Chart]:
        """Return the runs: ticks, and triangles for those beyond the axis."""
        base = data_chart(self.rows).encode(*places, *self.channels, tooltip=run_tooltips())
        base = base.transform_filter(legend)
        return [
            base.transform_filter(_INSIDE)
            .properties(name=f"{self.name}_ticks")  # see LinePanel
            .add_params(*params)
            .mark_point(
                clip=True, shape="stroke", angle=90, size=130, opacity=0.45, strokeWidth=1.6
            ),
            base.transform_filter(_BEYOND).mark_point(
                clip=True, shape="triangle-right", filled=True, size=60, opacity=0.4
            ),
        ]

    def _median_layers(self, places: Sequence[Any], legend: alt.Parameter) -> list[alt.Chart]:
        """Return the medians: diamonds, and triangles for those beyond the axis."""
        medians = data_chart(self.medians).encode(*places, *self.channels).transform_filter(legend)
        return [
            medians.transform_filter(_INSIDE)
            .encode(tooltip=median_tooltips())
            .mark_point(
                clip=True, filled=True, shape="diamond", size=110, opacity=1, stroke="white"
            ),
            medians.transform_filter(_BEYOND)
            .encode(tooltip=median_tooltips())
            .mark_point(clip=True, filled=True, shape="triangle-right", size=170, opacity=1),
        ]


def strip_grid(panels: Sequence[StripPanel]) -> alt.VConcatChart:
    """Draw panels side by side; the first has the names of the groups.

    Parameters
    ----------
    panels : sequence of StripPanel
        The panels.

    Returns
    -------
    altair.VConcatChart
        The chart.
    """
    width = panel_width(len(panels), WIDTH - 220)
    legend = legend_choice()
    drawn = [p.draw(legend, first=index == 0, width=width) for index, p in enumerate(panels)]
    return grid(drawn, len(panels))
