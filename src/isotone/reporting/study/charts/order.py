"""Order kept against order broken: every run with one layer edited, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from isotone.reporting.axis import fit_axis
from isotone.reporting.figure import Figure
from isotone.reporting.study.families import CATEGORIES, category, category_scale, correction_text
from isotone.reporting.study.formatting import csv_row
from isotone.reporting.study.grid import log_channel
from isotone.reporting.study.runs import MeasuredRun, by_k, geometric_median, single_layers
from isotone.reporting.study.strips import StripPanel, strip_grid, strip_medians, strip_rows

MOST = 1e6


def order_figure(runs: Sequence[MeasuredRun]) -> Figure | None:
    """Draw a strip for each edit and correction, coloured by what it keeps; a panel for each K.

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs of a study.

    Returns
    -------
    Figure or None
        The chart with its texts; None where no run belongs on it.
    """
    found = single_layers(runs)
    if not found:
        return None
    axis = fit_axis([run.perplexity_ratio for run in found], most=MOST, always=[1.0])
    groups = _groups(found)
    grouped = by_k(found)
    field, ticks, scale = log_channel(
        axis, "times the unedited perplexity, one layer edited", most=5
    )
    panels = [
        StripPanel(
            name=f"order_{index}",
            title=f"K = {k}" if len(grouped) > 1 else None,
            rows=strip_rows(grouped[k], axis, family=category, group=_group),
            medians=strip_medians(grouped[k], axis, family=category, group=_group),
            groups=groups,
            x=alt.X(field, axis=ticks, scale=scale),
            channels=[category_scale(found)],
            labelled=index == 0,
        )
        for index, k in enumerate(grouped)
    ]
    return Figure(
        name="order",
        heading="Order kept, order broken",
        guide="Look for whether the blue strips stay at the dashed line of the unedited model, and "
        "which corrections that takes.",
        caption="Each tick is a run with one layer edited; diamonds are medians over layers and "
        f"seeds. Triangles at the right edge lie beyond {MOST:,.0f} times, or gave no finite "
        "number. Strengths of one edit share a strip.",
        chart=strip_grid(panels),
        rows=[csv_row(run) for run in found],
    )


def _group(run: MeasuredRun) -> str:
    return f"{run.edit}; {correction_text(run.correction)}"


def _groups(runs: Sequence[MeasuredRun]) -> list[str]:
    """Return the groups, by what is kept and then by what it costs."""
    by_group: dict[tuple[int, str], list[float]] = {}
    for run in runs:
        key = CATEGORIES.index(category(run)), _group(run)
        by_group.setdefault(key, []).append(run.perplexity_ratio)
    ranked = sorted(by_group, key=lambda key: (key[0], geometric_median(by_group[key]), key[1]))
    return [name for _, name in ranked]
