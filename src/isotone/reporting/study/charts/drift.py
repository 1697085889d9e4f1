"""Drift: how the residual stream grows and turns along depth as layers are replaced."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import altair as alt

from isotone.reporting.axis import LogAxis, fit_axis
from isotone.reporting.figure import Figure
from isotone.reporting.findings.survival import ORDERS
from isotone.reporting.study.families import correction_text, family, family_scales
from isotone.reporting.study.formatting import Row
from isotone.reporting.study.grid import log_channel
from isotone.reporting.study.lines import DOWN, UP, LinePanel, line_grid
from isotone.reporting.study.runs import MeasuredRun

MOST = 100.0
"""Times the unedited RMS: what the axis shows."""

_TEXT_HEIGHT = 0.055  # of a panel's


@dataclass(frozen=True)
class _Stream:
    """Medians over seeds after each layer.

    Where the stream is not finite, growth is infinite and cosine is None.
    """

    order: str
    family: str
    n_replaced: int
    runs: tuple[MeasuredRun, ...]
    growth: tuple[float, ...]
    cosine: tuple[float | None, ...]


def drift_figure(runs: Sequence[MeasuredRun]) -> Figure | None:
    """Draw growth and cosine side by side, a row for each order of replacement.

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs of a study.

    Returns
    -------
    Figure or None
        The chart with its texts; None where no run belongs on it.
    """
    found = _compared([run for run in runs if run.protocol == "progressive"])
    k = max((run.k for run in found), default=0)
    streams = _streams(found)
    if not streams:
        return None
    growths = [value for stream in streams for value in stream.growth]
    axis = fit_axis(growths, most=MOST, least=1 / MOST, always=[1.0])
    orders = [name for name in ORDERS if any(stream.order == name for stream in streams)]
    panels = []
    for order in orders:
        own = [stream for stream in streams if stream.order == order]
        panels += [_growth_panel(own, found, axis, order), _cosine_panel(own, found, order)]
    return Figure(
        name="drift",
        heading="Drift of the residual stream",
        guide="Look for growth that builds up along depth without correction, and how much of it a "
        "correction takes away.",
        caption=f"K = {k}. Medians over seeds; the number beside a line is how many layers were "
        "replaced: one, a few, and the last that were measured. Growth is each token's RMS, edited "
        "by unedited, the geometric mean over tokens. Triangles lie beyond the axis, or gave no "
        "finite number.",
        chart=line_grid(panels, columns=2, height=240),
        rows=[row for stream in streams for row in _tabled(stream, k)],
    )


def _compared(runs: Sequence[MeasuredRun]) -> list[MeasuredRun]:
    """Return the runs of the largest K, uncorrected and with moments restored where both are there.

    More corrections would be more lines than a panel can hold.
    """
    k = max((run.k for run in runs), default=0)
    found = [run for run in runs if run.k == k]
    pair = {"none", "moments"}
    if pair <= {run.correction for run in found}:
        return [run for run in found if run.correction in pair]
    return found


def _streams(runs: Sequence[MeasuredRun]) -> list[_Stream]:
    grouped: dict[tuple[str, str, int], list[MeasuredRun]] = {}
    for run in runs:
        key = run.order or "", family(run), len(run.layers)
        grouped.setdefault(key, []).append(run)
    chosen: dict[tuple[str, str], set[int]] = {}
    for order, name, n in grouped:
        chosen.setdefault((order, name), set()).add(n)
    return [
        _Stream(order, name, n, tuple(own), _over(own, _growth), _cosines(own))
        for (order, name, n), own in sorted(grouped.items())
        if n in _few(chosen[order, name])
    ]


def _few(numbers: set[int]) -> set[int]:
    """Return the first, the last, and the one nearest to their geometric mean."""
    first, last = min(numbers), max(numbers)
    between = min(numbers, key=lambda n: abs(math.log(n * n / (first * last))))
    return {first, between, last}


def _growth(run: MeasuredRun) -> list[float]:
    return [math.inf if value is None else value for value in run.growth]


def _over(
    runs: Sequence[MeasuredRun], figure: Callable[[MeasuredRun], list[float]]
) -> tuple[float, ...]:
    return tuple(statistics.median_high(values) for values in zip(*map(figure, runs), strict=True))


def _cosines(runs: Sequence[MeasuredRun]) -> tuple[float | None, ...]:
    columns = zip(*(run.cosine for run in runs), strict=True)
    found = [[value for value in values if value is not None] for values in columns]
    return tuple(statistics.median(values) if values else None for values in found)


def _growth_panel(
    own: Sequence[_Stream], runs: Sequence[MeasuredRun], axis: LogAxis, order: str
) -> LinePanel:
    field, ticks, scale = log_channel(axis, "RMS, times the unedited")
    rows = [
        _row(stream, layer, axis.level(value), UP if axis.is_beyond(value) else "")
        for stream in own
        for layer, value in enumerate(stream.growth)
    ]
    y = alt.Y(field, axis=ticks, scale=scale)
    title = f"Growth, {ORDERS[order]}"
    height = math.log(axis.high / axis.low)
    return _panel(f"growth_{order}", title, rows, y, runs, lambda level: math.log(level) / height)


def _cosine_panel(own: Sequence[_Stream], runs: Sequence[MeasuredRun], order: str) -> LinePanel:
    found = [value for stream in own for value in stream.cosine if value is not None]
    low = min(0.0, *found, 0.0)
    rows = [
        _row(stream, layer, low if value is None else value, DOWN if value is None else "")
        for stream in own
        for layer, value in enumerate(stream.cosine)
    ]
    axis = alt.Axis(title="cosine to the unedited stream", tickCount=6)
    y = alt.Y("level:Q", axis=axis, scale=alt.Scale(domain=[low - 0.05, 1.05], nice=False))
    title, height = f"Cosine, {ORDERS[order]}", 1.1 - low
    return _panel(f"cosine_{order}", title, rows, y, runs, lambda level: level / height)


def _panel(
    name: str,
    title: str,
    rows: Sequence[Row],
    y: alt.Y,
    runs: Sequence[MeasuredRun],
    place: Callable[[float], float],
) -> LinePanel:
    """Return a panel; `place` gives where a level lies, in heights of the panel."""
    n_layers = max(run.n_layers for run in runs)
    x = alt.X(
        "x:Q",
        axis=alt.Axis(title="after layer", format="d", tickMinStep=1),
        scale=alt.Scale(domain=[0, n_layers + 2.5], nice=False),
    )
    return LinePanel(
        name=name,
        title=title,
        rows=rows,
        lines=[{key: row[key] for key in ("family", "detail", "x", "level")} for row in rows],
        x=x,
        y=y,
        channels=family_scales(runs),
        names=_names([row for row in rows if row["x"] == n_layers - 1], place),
        tips=[
            alt.Tooltip(f"{key}:N", title=text)
            for key, text in {
                "family": "edit",
                "name": "layers replaced",
                "x": "after layer",
                "growth": "RMS, times the unedited",
                "cosine": "cosine",
                "n": "seeds",
            }.items()
        ],
        rules=[(1.0, "")],
        size=16,
    )


def _names(ends: Sequence[Row], place: Callable[[float], float]) -> list[Row]:
    """Return the numbers of replaced layers beside the ends of lines; one text where ends meet."""
    names: list[Row] = []
    for row in sorted(ends, key=lambda row: (row["level"], row["detail"])):
        if names and place(row["level"]) - place(names[-1]["level"]) < _TEXT_HEIGHT:
            said = names[-1]["name"].split(", ")
            names[-1] = {**names[-1], "name": ", ".join(sorted({*said, row["name"]}, key=int))}
        else:
            names.append(row)
    return names


def _row(stream: _Stream, layer: int, level: float, beyond: str) -> Row:
    growth, cosine = stream.growth[layer], stream.cosine[layer]
    return {
        "family": stream.family,
        "detail": stream.n_replaced,
        "name": str(stream.n_replaced),
        "x": layer,
        "level": level,
        "beyond": beyond,
        "growth": f"{growth:.4g}" if growth < math.inf else "not finite",
        "cosine": "not finite" if cosine is None else f"{cosine:.4f}",
        "n": len(stream.runs),
    }


def _tabled(stream: _Stream, k: int) -> list[Row]:
    run = stream.runs[0]
    return [
        {
            "k": k,
            "order": stream.order,
            "edit": run.variant,
            "correction": correction_text(run.correction),
            "n_replaced": stream.n_replaced,
            "n_seeds": len(stream.runs),
            "layer": layer,
            "growth": growth if growth < math.inf else None,
            "cosine": cosine,
        }
        for layer, (growth, cosine) in enumerate(zip(stream.growth, stream.cosine, strict=True))
    ]
