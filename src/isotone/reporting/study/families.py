"""How edits are named and coloured: the same on every chart.

Cool colours keep the order, warm ones break it; a line without correction is dashed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt

from isotone.reporting.study.runs import MeasuredRun
from isotone.reporting.style import FAINT

KEPT, SIGNS, BROKEN = "order kept", "order broken, signs kept", "order broken"
NOISE, FLIPPED = "noise", "signs flipped"

_SHADES = {
    KEPT: ("#0b5cbd", "#007d6e", "#4338a8", "#3f7fa6", "#4d7200"),
    NOISE: ("#6a7079", "#9aa0a6"),
    SIGNS: ("#8039a8", "#b06fd0"),
    BROKEN: ("#c24e00", "#93401f", "#e08a00", "#b5860b", "#7a5200"),
    FLIPPED: ("#c2255c", "#7d0f38"),
}
"""The colours of each category, in the order of its edits; the first is also its own."""

CATEGORIES = tuple(_SHADES)

_CORRECTED = {
    "moments": "moments restored",
    "none": "uncorrected",
    "least-squares": "least squares",
    "range": "range restored",
}

_DASHES = {"none": [7, 4], "least-squares": [2, 3], "range": [9, 3, 2, 3]}


def category(run: MeasuredRun) -> str:
    """Return what an edit leaves of a codebook, as it declares it.

    Parameters
    ----------
    run : MeasuredRun
        The run.

    Returns
    -------
    str
        One of `CATEGORIES`.
    """
    if "order" in run.keeps:
        return KEPT
    if "signs" in run.keeps:
        return SIGNS
    if "values" in run.keeps:
        return BROKEN
    return FLIPPED if run.edit == "flip_signs" else NOISE


def correction_text(correction: str) -> str:
    """Return a correction in words.

    Parameters
    ----------
    correction : str
        The name of the correction.

    Returns
    -------
    str
        The words.
    """
    return _CORRECTED.get(correction, correction)


def family(run: MeasuredRun) -> str:
    """Return the edit, its parameters and its correction as one name.

    Parameters
    ----------
    run : MeasuredRun
        The run.

    Returns
    -------
    str
        The name, by which runs share a line and a colour.
    """
    return f"{run.variant}; {correction_text(run.correction)}"


def in_order(runs: Iterable[MeasuredRun]) -> list[MeasuredRun]:
    """Sort runs by category, then by edit, then by correction.

    Parameters
    ----------
    runs : iterable of MeasuredRun
        The runs.

    Returns
    -------
    list of MeasuredRun
        The runs; the restored moments come first.
    """
    corrections = list(_CORRECTED)

    def rank(run: MeasuredRun) -> tuple[int, str, int, str]:
        known = run.correction in corrections
        at = corrections.index(run.correction) if known else len(corrections)
        return CATEGORIES.index(category(run)), run.variant, at, run.correction

    return sorted(runs, key=rank)


def family_scales(
    runs: Sequence[MeasuredRun], *, columns: int = 3
) -> tuple[alt.Color, alt.StrokeDash]:
    """Return the scales of the field `family`: colours by category, dashes by correction.

    Where a category has more families than shades, the corrections of one edit share a shade.

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs of the chart.
    columns : int
        The columns of the legend, which the two share.

    Returns
    -------
    color : altair.Color
        The colours.
    dash : altair.StrokeDash
        The dashes.
    """
    first = {family(run): run for run in reversed(in_order(runs))}
    ordered = {name: first[name] for name in reversed(first)}
    sizes = Counter(map(category, ordered.values()))
    crowded = {name for name in sizes if sizes[name] > len(_SHADES[name])}

    def shaded(run: MeasuredRun) -> str:
        return run.variant if category(run) in crowded else family(run)

    shades: dict[str, dict[str, str]] = {name: {} for name in CATEGORIES}
    for run in ordered.values():
        taken, palette = shades[category(run)], _SHADES[category(run)]
        taken.setdefault(shaded(run), palette[len(taken) % len(palette)])
    domain = list(ordered)
    colors = [shades[category(run)][shaded(run)] for run in ordered.values()]
    dashes = [_DASHES.get(run.correction, [1, 0]) for run in ordered.values()]
    legend = legend_above(columns, symbolType="stroke", symbolSize=700)
    return (
        alt.Color("family:N", scale=alt.Scale(domain=domain, range=colors), legend=legend),
        alt.StrokeDash("family:N", scale=alt.Scale(domain=domain, range=dashes), legend=legend),
    )


def category_scale(runs: Iterable[MeasuredRun], field: str = "family") -> alt.Color:
    """Return the colours of the categories that occur.

    Parameters
    ----------
    runs : iterable of MeasuredRun
        The runs of the chart.
    field : str
        The field that holds the category.

    Returns
    -------
    altair.Color
        The colours.
    """
    found = {category(run) for run in runs}
    domain = [name for name in CATEGORIES if name in found]
    colors = [_SHADES[name][0] for name in domain]
    scale = alt.Scale(domain=domain, range=colors)
    return alt.Color(f"{field}:N", scale=scale, legend=legend_above(5))


def legend_below(columns: int) -> alt.Legend:
    """Return a second legend, of shapes, where it does not run into the first.

    Parameters
    ----------
    columns : int
        The columns of the legend.

    Returns
    -------
    altair.Legend
        The legend.
    """
    return legend_above(
        columns, orient="bottom", symbolFillColor=FAINT, symbolStrokeColor=FAINT, offset=4
    )


def legend_above(columns: int, **settings: Any) -> alt.Legend:  # noqa: ANN401 (Altair's own)
    """Return a legend in rows above the panels.

    Parameters
    ----------
    columns : int
        The columns of the legend.
    **settings
        Further settings of altair.Legend, which win over those of here.

    Returns
    -------
    altair.Legend
        The legend.
    """
    return alt.Legend(
        title=None,
        columns=columns,
        columnPadding=24,
        symbolStrokeWidth=2.5,
        symbolOpacity=1,
        labelLimit=420,
        **{"orient": "top", "symbolSize": 140, **settings},
    )
