"""Progressive replacement: perplexity over the number of layers that were replaced."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt

from isotone.reporting.axis import LogAxis, fit_axis
from isotone.reporting.figure import Figure
from isotone.reporting.findings.survival import ORDERS, Replacement, replacements
from isotone.reporting.study.families import family, family_scales
from isotone.reporting.study.formatting import Row, csv_row, tooltip_row
from isotone.reporting.study.grid import log_channel
from isotone.reporting.study.lines import UP, LinePanel, line_grid
from isotone.reporting.study.runs import MeasuredRun, geometric_median

MOST = 1000.0


def collapse_figure(runs: Sequence[MeasuredRun]) -> Figure | None:
    """Draw a line for each edit and correction; columns are orders of replacement, rows are K.

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs of a study.

    Returns
    -------
    Figure or None
        The chart with its texts; None where no run belongs on it.
    """
    found = replacements(runs)
    if not found:
        return None
    all_runs = [run for sequence in found for run in sequence.runs]
    sizes = sorted({sequence.k for sequence in found})
    used = {sequence.order for sequence in found}
    orders = [name for name in ORDERS if name in used] + sorted(used - set(ORDERS))
    most = max(len(run.layers) for run in all_runs)
    panels: list[LinePanel] = []
    for k in sizes:
        base = next(run.unedited for run in all_runs if run.k == k)
        perplexities = [run.perplexity for run in all_runs if run.k == k]
        axis = fit_axis(perplexities, most=MOST * base, always=[base, 2 * base])
        for order in orders:
            own = [sequence for sequence in found if (sequence.k, sequence.order) == (k, order)]
            cell, titled = (k, order), order == orders[0]
            panel = _panel(own, all_runs, axis, cell, most, number=len(panels), titled=titled)
            panels.append(panel)
    return Figure(
        name="collapse",
        heading="Progressive replacement",
        guide="Look for how many layers can be replaced before a line crosses the upper dashed "
        "one, twice the unedited perplexity, with and without correction.",
        caption="Thin lines are seeds, thick ones their median for as long as half of them go on; "
        "a sequence ends soon after it has collapsed. Triangles at the upper edge lie beyond "
        f"{MOST:,.0f} times the unedited perplexity, or gave no finite number.",
        chart=line_grid(panels, columns=len(orders), height=300),
        rows=[csv_row(run) for run in all_runs],
    )


def _panel(
    own: Sequence[Replacement],
    all_runs: Sequence[MeasuredRun],
    axis: LogAxis,
    cell: tuple[int, str],
    most: int,
    *,
    number: int,
    titled: bool,
) -> LinePanel:
    k, order = cell
    base = next(run.unedited for run in all_runs if run.k == k)
    field, ticks, scale = log_channel(axis, "perplexity" if titled else "")
    return LinePanel(
        name=f"collapse_{number}",
        title=f"K = {k}, {ORDERS.get(order, order)}",
        rows=[row for number, sequence in enumerate(own) for row in _rows(sequence, number, axis)],
        lines=_medians(own, axis),
        x=alt.X(
            "x:Q",
            axis=alt.Axis(title="layers replaced", format="d", tickMinStep=1),
            scale=alt.Scale(domain=[0, most + 0.5], nice=False),
        ),
        y=alt.Y(field, axis=ticks, scale=scale),
        channels=family_scales(all_runs),
        rules=[(base, "unedited" if titled else ""), (2 * base, "twice" if titled else "")],
        threads=True,
        size=22,
    )


def _rows(sequence: Replacement, number: int, axis: LogAxis) -> list[Row]:
    """Return the points of one sequence, which a thin line joins."""
    name = family(sequence.runs[0])
    return [
        {
            **tooltip_row(run),
            "family": name,
            "thread": number,
            "x": len(run.layers),
            "level": axis.level(run.perplexity),
            "beyond": UP if axis.is_beyond(run.perplexity) else "",
        }
        for run in sequence.runs
    ]


def _medians(own: Sequence[Replacement], axis: LogAxis) -> list[Row]:
    rows = []
    for name in dict.fromkeys(family(sequence.runs[0]) for sequence in own):
        mine = [sequence for sequence in own if family(sequence.runs[0]) == name]
        base = mine[0].runs[0].unedited
        rows.append({"family": name, "x": 0, "level": axis.level(base)})
        for n in sorted({len(run.layers) for sequence in mine for run in sequence.runs}):
            typical = _typical([sequence.ratio_at(n) for sequence in mine])
            if typical is None:
                break
            rows.append({"family": name, "x": n, "level": axis.level(typical * base)})
    return rows


def _typical(ratios: Sequence[float | None]) -> float | None:
    """Return the median; None where it is a sequence that has ended, and so had collapsed."""
    typical = geometric_median(math.inf if ratio is None else ratio for ratio in ratios)
    return None if typical == math.inf and None in ratios else typical
