"""Per-layer sensitivity: what editing each layer alone costs."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from isotone.reporting.axis import LogAxis, fit_axis
from isotone.reporting.figure import Figure
from isotone.reporting.study.families import family, family_scales
from isotone.reporting.study.formatting import Row, tabled, told
from isotone.reporting.study.grid import log_channel
from isotone.reporting.study.lines import UP, LinePanel, line_grid
from isotone.reporting.study.runs import StudyRun, by_size, middle, single_layers

MOST = 1e5
"""Times the unedited perplexity: what the axis shows."""

_MOST_LINES = 9


def sensitivity_figure(runs: Sequence[StudyRun]) -> Figure | None:
    """One line for each edit and correction over the layers, a panel for each K."""
    found = _widest(single_layers(runs))
    if not found:
        return None
    axis = fit_axis([run.damage for run in found], most=MOST, always=[1.0])
    layers = range(max(run.n_layers for run in found))
    of_size = by_size(found)
    x = alt.X(
        "x:Q",
        axis=alt.Axis(title="layer, edited alone", format="d", tickMinStep=1),
        scale=alt.Scale(domain=[-0.5, len(layers) - 0.5], nice=False),
    )
    panels = []
    for index, (k, own) in enumerate(of_size.items()):
        field, ticks, scale = log_channel(axis, "" if index else "times the unedited perplexity")
        panels.append(
            LinePanel(
                name=f"sensitivity_{index}",
                title=f"K = {k}" if len(of_size) > 1 else None,
                rows=[_row(run, axis) for run in own],
                lines=[
                    {"family": name, "x": layer, "level": axis.level(damage)}
                    for (name, layer), damage in _medians(own).items()
                ],
                x=x,
                y=alt.Y(field, axis=ticks, scale=scale),
                channels=family_scales(found),
                rules=[(1.0, "" if index else "unedited")],
            )
        )
    return Figure(
        name="sensitivity",
        heading="Per-layer sensitivity",
        look="Look for how far the warm lines (order broken) lie above the blue and green ones "
        "(order kept), and for the layers where keeping the order does not help.",
        caption="Each point is one run with one layer edited, all other layers as they were; lines "
        "go through medians over seeds. Dashed: without affine correction. Triangles at the upper "
        f"edge lie beyond {MOST:,.0f} times, or gave no finite number.",
        chart=line_grid(panels, columns=2),
        rows=[tabled(run) for run in found],
    )


def _widest(runs: Sequence[StudyRun]) -> list[StudyRun]:
    """The families that cover many layers; those of a few layers have charts of their own."""
    covered: dict[str, set[int]] = {}
    for run in runs:
        covered.setdefault(family(run), set()).add(run.layer)
    most = max((len(layers) for layers in covered.values()), default=0)
    wide = [name for name, layers in covered.items() if 3 * len(layers) >= most]
    kept = set(sorted(wide, key=lambda name: -len(covered[name]))[:_MOST_LINES])
    return [run for run in runs if family(run) in kept]


def _row(run: StudyRun, axis: LogAxis) -> Row:
    return {
        **told(run),
        "family": family(run),
        "x": run.layer,
        "level": axis.level(run.damage),
        "beyond": UP if axis.is_beyond(run.damage) else "",
    }


def _medians(runs: Sequence[StudyRun]) -> dict[tuple[str, int], float]:
    by_place: dict[tuple[str, int], list[float]] = {}
    for run in runs:
        by_place.setdefault((family(run), run.layer), []).append(run.damage)
    return {place: middle(damages) for place, damages in by_place.items()}
