"""Matrix types: what editing one type of matrix alone costs."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from isotone.reporting.axis import fit_axis
from isotone.reporting.figure import Figure
from isotone.reporting.study.families import family, family_scales, in_order
from isotone.reporting.study.formatting import csv_row, spans
from isotone.reporting.study.grid import log_channel
from isotone.reporting.study.runs import MeasuredRun, by_k, geometric_median
from isotone.reporting.study.strips import StripPanel, strip_grid, strip_medians, strip_rows

MOST = 1e6


def types_figure(runs: Sequence[MeasuredRun]) -> Figure | None:
    """Draw a strip for each type of matrix, with families one above another; a panel for each K.

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs of a study.

    Returns
    -------
    Figure or None
        The chart with its texts; None where no run belongs on it.
    """
    found = in_order(run for run in runs if run.protocol == "type")
    if not found:
        return None
    axis = fit_axis([run.perplexity_ratio for run in found], most=MOST, always=[1.0])
    groups = _groups(found)
    grouped = by_k(found)
    n_families = len({family(run) for run in found})
    field, ticks, scale = log_channel(
        axis, "times the unedited perplexity, one type edited", most=5
    )
    panels = [
        StripPanel(
            name=f"types_{index}",
            title=f"K = {k}" if len(grouped) > 1 else None,
            rows=strip_rows(grouped[k], axis, family=family, group=_group),
            medians=strip_medians(grouped[k], axis, family=family, group=_group),
            groups=groups,
            x=alt.X(field, axis=ticks, scale=scale),
            channels=family_scales(found)[:1],
            labelled=index == 0,
            offset=True,
            step=14 + 14 * n_families,
        )
        for index, k in enumerate(grouped)
    ]
    where = "; ".join(dict.fromkeys(spans(run.layers) for run in found))
    return Figure(
        name="types",
        heading="Matrix types",
        guide="Look for the kinds of matrix that bear a new codebook, and those that do not.",
        caption=f"Each tick is a run in which one type of matrix was edited in layers {where}; "
        "diamonds are medians over seeds. Triangles at the right edge lie beyond "
        f"{MOST:,.0f} times, or gave no finite number.",
        chart=strip_grid(panels),
        rows=[csv_row(run) for run in found],
    )


def _group(run: MeasuredRun) -> str:
    return ", ".join(run.types)


def _groups(runs: Sequence[MeasuredRun]) -> list[str]:
    """Return the types, those that cost most first."""
    by_type: dict[str, list[float]] = {}
    for run in runs:
        by_type.setdefault(_group(run), []).append(run.perplexity_ratio)
    return sorted(by_type, key=lambda name: (-geometric_median(by_type[name]), name))
