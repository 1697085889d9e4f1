"""Per-layer sensitivity: what editing each layer alone costs."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from isotone.reporting.axis import LogAxis, fit_axis
from isotone.reporting.figure import Figure
from isotone.reporting.study.families import family, family_scales
from isotone.reporting.study.formatting import Row, csv_row, tooltip_row
from isotone.reporting.study.grid import log_channel
from isotone.reporting.study.lines import UP, LinePanel, line_grid
from isotone.reporting.study.runs import MeasuredRun, by_k, geometric_median, single_layers

MOST = 1e5
"""Times the unedited perplexity: what the axis shows."""

_MOST_LINES = 9


def sensitivity_figure(runs: Sequence[MeasuredRun]) -> Figure | None:
    """Draw one line for each edit and correction over the layers, a panel for each K.

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs of a study.

    Returns
    -------
    Figure or None
        The chart with its texts; None where no run belongs on it.
    """
    found = _widest(single_layers(runs))
    if not found:
        return None
    axis = fit_axis([run.perplexity_ratio for run in found], most=MOST, always=[1.0])
    panels = _panels(found, axis)
    return Figure(
        name="sensitivity",
        heading="Per-layer sensitivity",
        guide="Look for how far the warm lines (order broken) lie above the blue and green ones "
        "(order kept), and for the layers where keeping the order does not help.",
        caption="Each point is one run with one layer edited, all other layers as they were; lines "
        "go through medians over seeds. Dashed: without affine correction. Triangles at the upper "
        f"edge lie beyond {MOST:,.0f} times, or gave no finite number.",
        chart=line_grid(panels, columns=2),
        rows=[csv_row(run) for run in found],
    )


def _panels(runs: Sequence[MeasuredRun], axis: LogAxis) -> list[LinePanel]:
    """Return a panel for each K."""
    n_layers = max(run.n_layers for run in runs)
    grouped = by_k(runs)
    x = alt.X(
        "x:Q",
        axis=alt.Axis(title="layer, edited alone", format="d", tickMinStep=1),
        scale=alt.Scale(domain=[-0.5, n_layers - 0.5], nice=False),
    )
    panels = []
    for index, (k, own) in enumerate(grouped.items()):
        field, ticks, scale = log_channel(axis, "" if index else "times the unedited perplexity")
        panels.append(
            LinePanel(
                name=f"sensitivity_{index}",
                title=f"K = {k}" if len(grouped) > 1 else None,
                rows=[_row(run, axis) for run in own],
                lines=[
                    {"family": name, "x": layer, "level": axis.level(ratio)}
                    for (name, layer), ratio in _medians(own).items()
                ],
                x=x,
                y=alt.Y(field, axis=ticks, scale=scale),
                channels=family_scales(runs),
                rules=[(1.0, "" if index else "unedited")],
            )
        )
    return panels


def _widest(runs: Sequence[MeasuredRun]) -> list[MeasuredRun]:
    """Return the runs of families that cover many layers; the others have charts of their own."""
    covered: dict[str, set[int]] = {}
    for run in runs:
        covered.setdefault(family(run), set()).add(run.layer)
    most = max((len(layers) for layers in covered.values()), default=0)
    wide = [name for name, layers in covered.items() if 3 * len(layers) >= most]
    kept = set(sorted(wide, key=lambda name: -len(covered[name]))[:_MOST_LINES])
    return [run for run in runs if family(run) in kept]


def _row(run: MeasuredRun, axis: LogAxis) -> Row:
    return {
        **tooltip_row(run),
        "family": family(run),
        "x": run.layer,
        "level": axis.level(run.perplexity_ratio),
        "beyond": UP if axis.is_beyond(run.perplexity_ratio) else "",
    }


def _medians(runs: Sequence[MeasuredRun]) -> dict[tuple[str, int], float]:
    by_place: dict[tuple[str, int], list[float]] = {}
    for run in runs:
        by_place.setdefault((family(run), run.layer), []).append(run.perplexity_ratio)
    return {place: geometric_median(ratios) for place, ratios in by_place.items()}
