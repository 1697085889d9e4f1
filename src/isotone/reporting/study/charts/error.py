"""Order or size of the error: the added perplexity over the relative L2 error of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt

from isotone.reporting.axis import LogAxis, fit_axis
from isotone.reporting.figure import Figure
from isotone.reporting.study.families import category, category_scale, legend_below
from isotone.reporting.study.formatting import Row, csv_row, tooltip_row
from isotone.reporting.study.grid import log_channel
from isotone.reporting.study.lines import RIGHT, UP, Channel, LinePanel, line_grid
from isotone.reporting.study.runs import MeasuredRun, geometric_median, single_layers

MOST, LEAST = 1e5, 3e-3
"""What the axis of added perplexity shows, in times the unedited one."""

LEAST_ERROR, MOST_ERROR = 0.02, 4.0

_MOST_PANELS = 6
_KINDS = {
    "scaled": ("scaled to one relative error", "diamond"),
    "moments": ("as drawn, moments restored", "circle"),
    "other": ("as drawn, otherwise corrected", "square"),
    "none": ("as drawn, uncorrected", "cross"),
}


def error_figure(runs: Sequence[MeasuredRun]) -> Figure | None:
    """Draw a panel for each layer and K whose runs were scaled to equal errors, else one for all.

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs of a study.

    Returns
    -------
    Figure or None
        The chart with its texts; None where no run belongs on it.
    """
    found = single_layers(runs, at_error=None)
    if not found:
        return None
    cells = _cells(found)
    chosen = [run for run in found if cells is None or (run.k, run.layer) in cells]
    y_axis = fit_axis([_added(run) for run in chosen], most=MOST, least=LEAST, always=[0.01, 1.0])
    x_axis = fit_axis(
        [run.relative_error for run in chosen],
        most=MOST_ERROR,
        least=LEAST_ERROR,
        always=[0.1, 1.0],
    )
    columns = min(3, len(cells or [0]))
    panels = []
    for index, cell in enumerate(cells or [None]):
        own = [run for run in chosen if cell is None or (run.k, run.layer) == cell]
        title = "All layers" if cell is None else f"Layer {cell[1]}, K = {cell[0]}"
        panels.append(_panel(own, chosen, (x_axis, y_axis), title, index, index % columns == 0))
    return Figure(
        name="error",
        heading="Order or size of the error?",
        guide="Look at one relative error, from bottom to top: if colours lie apart there, what is "
        "kept matters; if all colours share one band, the size of the error explains the damage.",
        caption="Each point is one run with one layer edited; lines go through the medians of one "
        "edit, scaled to relative L2 errors of the weights; each lies at the error it reached. "
        "Scaled down far enough, a scramble keeps its order again: the tooltip has Spearman's rho. "
        "Points at the "
        f"lower edge add less than {LEAST:.1%}; triangles lie beyond an axis, or gave no finite "
        "number.",
        chart=line_grid(panels, columns=columns, height=400 if columns < 3 else 330, total=1040),
        rows=[csv_row(run) for run in chosen],
    )


def _cells(runs: Sequence[MeasuredRun]) -> list[tuple[int, int]] | None:
    """Return K and layer of each panel; None for one panel of all runs."""
    scaled = sorted({(run.k, run.layer) for run in runs if run.at_error is not None})
    return scaled if 0 < len(scaled) <= _MOST_PANELS else None


def _panel(
    own: Sequence[MeasuredRun],
    chosen: Sequence[MeasuredRun],
    axes: tuple[LogAxis, LogAxis],
    title: str,
    index: int,
    labelled: bool,
) -> LinePanel:
    x_axis, y_axis = axes
    x_field, x_ticks, x_scale = log_channel(x_axis, "relative L2 error", field="x")
    ticks = [value for value in _TICKS if y_axis.low <= value <= y_axis.high]
    y = alt.Y(
        "level:Q",
        scale=y_axis.scale,
        axis=alt.Axis(
            values=ticks,
            labelExpr=_LABELS,
            title="perplexity, over the unedited" if labelled else None,
        ),
    )
    return LinePanel(
        name=f"error_{index}",
        title=title,
        rows=[_row(run, x_axis, y_axis) for run in own],
        lines=_lines(own, x_axis, y_axis),
        x=alt.X(x_field, axis=x_ticks, scale=x_scale),
        y=y,
        channels=_channels(chosen),
        size=44,
    )


_TICKS = (0.01, 0.1, 1, 9, 99, 999, 9999, 99999)
_LABELS = (
    "datum.value < 1 ? '+' + format(100 * datum.value, '.3~g') + ' %'"
    " : '× ' + format(datum.value + 1, ',.6~g')"
)


def _added(run: MeasuredRun) -> float:
    """Return the perplexity that the edit added, over the unedited one; it may be negative."""
    return run.perplexity_ratio - 1


def _kind(run: MeasuredRun) -> str:
    if run.at_error is not None:
        return "scaled"
    return run.correction if run.correction in _KINDS else "other"


def _row(run: MeasuredRun, x_axis: LogAxis, y_axis: LogAxis) -> Row:
    aside = RIGHT if x_axis.is_beyond(run.relative_error) else ""
    return {
        **tooltip_row(run),
        "family": category(run),
        "kind": _KINDS[_kind(run)][0],
        "x": x_axis.level(run.relative_error),
        "level": y_axis.level(_added(run)),
        "beyond": UP if y_axis.is_beyond(_added(run)) else aside,
    }


def _lines(runs: Sequence[MeasuredRun], x_axis: LogAxis, y_axis: LogAxis) -> list[Row]:
    by_place: dict[tuple[str, str, float], list[MeasuredRun]] = {}
    for run in runs:
        if run.at_error is not None:
            place = run.variant, run.correction, run.at_error
            by_place.setdefault(place, []).append(run)
    return [
        {
            "family": category(own[0]),
            "detail": f"{variant} {correction}",
            "x": x_axis.level(geometric_median(run.relative_error for run in own)),
            "level": y_axis.level(_typical(own)),
        }
        for (variant, correction, _), own in by_place.items()
    ]


def _typical(runs: Sequence[MeasuredRun]) -> float:
    ratio = geometric_median(run.perplexity_ratio for run in runs)
    return ratio - 1 if ratio < math.inf else math.inf


def _channels(runs: Sequence[MeasuredRun]) -> list[Channel]:
    kinds = [_KINDS[kind] for kind in _KINDS if any(_kind(run) == kind for run in runs)]
    scale = alt.Scale(domain=[name for name, _ in kinds], range=[shape for _, shape in kinds])
    return [
        category_scale(runs),
        alt.Shape(
            "kind:N",
            scale=scale,
            legend=legend_below(4),
        ),
    ]
