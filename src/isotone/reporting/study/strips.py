"""A panel of runs as ticks along a logarithmic axis, a strip for each group of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from isotone.reporting.axis import LogAxis
from isotone.reporting.study.formatting import Row, median_tooltips, times, told, tooltips
from isotone.reporting.study.grid import (
    WIDTH,
    data_chart,
    grid,
    legend_choice,
    panel_title,
    panel_width,
)
from isotone.reporting.study.runs import StudyRun, middle
from isotone.reporting.style import FAINT

Name = Callable[[StudyRun], str]


def strip_rows(runs: Sequence[StudyRun], axis: LogAxis, *, family: Name, group: Name) -> list[Row]:
    """The ticks of runs, for StripPanel."""
    return [
        {
            **told(run),
            "family": family(run),
            "group": group(run),
            "level": axis.level(run.damage),
            "beyond": axis.is_beyond(run.damage),
        }
        for run in runs
    ]


def strip_medians(
    runs: Sequence[StudyRun], axis: LogAxis, *, family: Name, group: Name
) -> list[Row]:
    """What is typical of each family in each group, for StripPanel."""
    by_place: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        by_place.setdefault((family(run), group(run)), []).append(run.damage)
    found = {place: (middle(damages), len(damages)) for place, damages in by_place.items()}
    return [
        {
            "family": name,
            "group": its_group,
            "level": axis.level(damage),
            "beyond": axis.is_beyond(damage),
            "damage": times(damage),
            "n": n,
        }
        for (name, its_group), (damage, n) in found.items()
    ]


@dataclass(frozen=True)
class StripPanel:
    """Runs as ticks along a logarithmic axis, a strip for each group, and their medians.

    rows, medians: with family, group, level and beyond. groups: from top to bottom. offset: the
    families one above another within a group.
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
        """The marks; legend as for LinePanel."""
        axis = alt.Axis(
            grid=True,
            labelExpr="datum.value",  # the numbers' format would be tried on names
            labelLimit=420,
            labels=self.labelled,
            ticks=False,
            title=None,
        )
        # All groups, those without a run in this panel too: its labels serve its neighbours.
        y = alt.Y("group:N", axis=axis, scale=alt.Scale(domain=list(self.groups)), sort=None)
        places: list[Any] = [self.x, y]
        if self.offset:
            order = list(dict.fromkeys(row["family"] for row in self.medians))
            places.append(alt.YOffset("family:N", sort=order))
        zoom = alt.selection_interval(bind="scales", encodings=["x"], name=f"zoom_{self.name}")
        base = data_chart(self.rows).encode(*places, *self.channels, tooltip=tooltips())
        base = base.transform_filter(legend)
        medians = data_chart(self.medians).encode(*places, *self.channels).transform_filter(legend)
        rule = alt.Chart(alt.InlineData([{"level": 1.0}])).encode(x=self.x)
        params = [zoom, *([legend] if first else [])]
        inside, beyond = "!datum.beyond", "datum.beyond"
        layers = [
            rule.mark_rule(strokeDash=[7, 5], color=FAINT, strokeWidth=1.5, clip=True),
            base.transform_filter(inside)
            .properties(name=f"{self.name}_ticks")  # see LinePanel
            .add_params(*params)
            .mark_point(
                clip=True, shape="stroke", angle=90, size=130, opacity=0.45, strokeWidth=1.6
            ),
            base.transform_filter(beyond).mark_point(
                clip=True, shape="triangle-right", filled=True, size=60, opacity=0.4
            ),
            medians.transform_filter(inside)
            .encode(tooltip=median_tooltips())
            .mark_point(
                clip=True, filled=True, shape="diamond", size=110, opacity=1, stroke="white"
            ),
            medians.transform_filter(beyond)
            .encode(tooltip=median_tooltips())
            .mark_point(clip=True, filled=True, shape="triangle-right", size=170, opacity=1),
        ]
        height = self.step * len(self.groups)
        title = panel_title(self.title)
        return alt.LayerChart(layer=layers, width=width, height=height, title=title)


def strip_grid(panels: Sequence[StripPanel]) -> alt.VConcatChart:
    """Panels side by side; the first has the names of the groups."""
    width = panel_width(len(panels), WIDTH - 220)
    legend = legend_choice()
    drawn = [p.draw(legend, first=index == 0, width=width) for index, p in enumerate(panels)]
    return grid(drawn, len(panels))
