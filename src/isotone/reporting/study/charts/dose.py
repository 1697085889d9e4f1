"""Dose: what losing the order by degrees costs, over Spearman's rho of the codebook."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from isotone.reporting.axis import LogAxis, fit_axis
from isotone.reporting.figure import Figure
from isotone.reporting.study.families import correction_text, legend_above, legend_below
from isotone.reporting.study.formatting import Row, csv_row, tooltip_row
from isotone.reporting.study.grid import log_channel
from isotone.reporting.study.lines import UP, LinePanel, line_grid
from isotone.reporting.study.runs import MeasuredRun, geometric_median, single_layers

MOST = 1e5

BY_DEGREES = ("to_spearman", "transpose", "permute_window", "swap_neighbours")
WHOLLY = ("permute", "reverse")

_LAYER_COLORS = ("#0b5cbd", "#c24e00", "#007d6e", "#8039a8", "#7a5200", "#c2255c", "#6a7079")
_SHAPES = ("circle", "square", "diamond", "cross", "triangle-down", "triangle-right")


def dose_figure(runs: Sequence[MeasuredRun]) -> Figure | None:
    """Draw a colour for each layer and a shape for each edit; a panel for each K and correction.

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs of a study.

    Returns
    -------
    Figure or None
        The chart with its texts; None where no run belongs on it.
    """
    found = _doses(single_layers(runs))
    if not found:
        return None
    axis = fit_axis([run.perplexity_ratio for run in found], most=MOST, always=[1.0])
    panels = _panels(found, axis)
    return Figure(
        name="dose",
        heading="Dose: order lost by degrees",
        guide="Look for how steeply damage rises as soon as rho leaves 1, and whether it depends "
        "on rho alone or on the edit as well.",
        caption="Each point is one run with one layer edited; lines go through the medians of "
        "to_spearman, by the rho that was asked for. Triangles at the upper edge lie beyond "
        f"{MOST:,.0f} times, or gave no finite number.",
        chart=line_grid(panels, columns=2),
        rows=[csv_row(run) for run in found],
    )


def _panels(runs: Sequence[MeasuredRun], axis: LogAxis) -> list[LinePanel]:
    """Return a panel for each K and correction."""
    cells = sorted({(run.k, run.correction) for run in runs})
    x = alt.X(
        "x:Q",
        axis=alt.Axis(title="Spearman's rho of the codebook: order kept to order reversed"),
        # From the order as it was on the left to its reverse.
        scale=alt.Scale(domain=[1.05, -1.05], nice=False),
    )
    panels = []
    for index, (k, correction) in enumerate(cells):
        own = [run for run in runs if (run.k, run.correction) == (k, correction)]
        title = "" if index % 2 else "times the unedited perplexity"
        field, ticks, scale = log_channel(axis, title)
        panels.append(
            LinePanel(
                name=f"dose_{index}",
                title=f"K = {k}, {correction_text(correction)}" if len(cells) > 1 else None,
                rows=[_row(run, axis) for run in own],
                lines=_lines(own, axis),
                x=x,
                y=alt.Y(field, axis=ticks, scale=scale),
                channels=_channels(runs),
                rules=[(1.0, "" if index % 2 else "unedited")],
                size=46,
            )
        )
    return panels


def _doses(runs: Sequence[MeasuredRun]) -> list[MeasuredRun]:
    """Return the runs of layers and clusterings for which an edit breaks the order by degrees."""
    known = [run for run in runs if run.spearman is not None]
    cells = {(run.k, run.layer, run.correction) for run in known if run.edit in BY_DEGREES}
    return [
        run
        for run in known
        if run.edit in (*BY_DEGREES, *WHOLLY) and (run.k, run.layer, run.correction) in cells
    ]


def _row(run: MeasuredRun, axis: LogAxis) -> Row:
    return {
        **tooltip_row(run),
        "family": f"layer {run.layer}",
        "kind": run.edit,
        "x": run.spearman,
        "level": axis.level(run.perplexity_ratio),
        "beyond": UP if axis.is_beyond(run.perplexity_ratio) else "",
    }


def _lines(runs: Sequence[MeasuredRun], axis: LogAxis) -> list[Row]:
    by_dose: dict[tuple[int, str], list[MeasuredRun]] = {}
    for run in runs:
        if run.edit == "to_spearman":
            by_dose.setdefault((run.layer, run.variant), []).append(run)
    return [
        {
            "family": f"layer {layer}",
            "x": sum(run.spearman or 0.0 for run in own) / len(own),
            "level": axis.level(geometric_median(run.perplexity_ratio for run in own)),
        }
        for (layer, _), own in by_dose.items()
    ]


def _channels(runs: Sequence[MeasuredRun]) -> list[alt.Color | alt.Shape]:
    layers = sorted({run.layer for run in runs})
    edits = [name for name in (*BY_DEGREES, *WHOLLY) if any(run.edit == name for run in runs)]
    colors = [_LAYER_COLORS[index % len(_LAYER_COLORS)] for index in range(len(layers))]
    names = [f"layer {layer}" for layer in layers]
    scale = alt.Scale(domain=names, range=colors)
    shapes = alt.Scale(domain=edits, range=list(_SHAPES[: len(edits)]))
    return [
        alt.Color("family:N", scale=scale, legend=legend_above(8)),
        alt.Shape(
            "kind:N",
            scale=shapes,
            legend=legend_below(6),
        ),
    ]
