"""What edits are called and how they are coloured: the same on every chart.

Cool colours keep the order, warm ones break it; a line without correction is dashed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt

from isotone.reporting.study.runs import StudyRun
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
"""Of a category, in the order of their edits; the first stands for the category itself."""

CATEGORIES = tuple(_SHADES)

_CORRECTED = {
    "moments": "moments restored",
    "none": "uncorrected",
    "least-squares": "least squares",
    "range": "range restored",
}

_DASHES = {"none": [7, 4], "least-squares": [2, 3], "range": [9, 3, 2, 3]}


def category(run: StudyRun) -> str:
    """What an edit leaves of a codebook, as it declares it."""
    if "order" in run.keeps:
        return KEPT
    if "signs" in run.keeps:
        return SIGNS
    if "values" in run.keeps:
        return BROKEN
    return FLIPPED if run.edit == "flip_signs" else NOISE


def corrected(correction: str) -> str:
    """A correction in words."""
    return _CORRECTED.get(correction, correction)


def family(run: StudyRun) -> str:
    """The edit, its parameters and its correction, as one name."""
    return f"{run.variant}; {corrected(run.correction)}"


def in_order(runs: Iterable[StudyRun]) -> list[StudyRun]:
    """By category, then edit, then correction, the restored moments first."""
    corrections = list(_CORRECTED)

    def rank(run: StudyRun) -> tuple[int, str, int, str]:
        known = run.correction in corrections
        at = corrections.index(run.correction) if known else len(corrections)
        return CATEGORIES.index(category(run)), run.variant, at, run.correction

    return sorted(runs, key=rank)


def family_scales(
    runs: Sequence[StudyRun], *, columns: int = 3
) -> tuple[alt.Color, alt.StrokeDash]:
    """Scales of the field `family`, with one legend: colours by category, dashes by correction.

    Where a category has more families than shades, the corrections of one edit share a shade.
    """
    first = {family(run): run for run in reversed(in_order(runs))}
    ordered = {name: first[name] for name in reversed(first)}
    sizes = Counter(map(category, ordered.values()))
    crowded = {name for name in sizes if sizes[name] > len(_SHADES[name])}

    def shaded(run: StudyRun) -> str:
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


def category_scale(runs: Iterable[StudyRun], field: str = "family") -> alt.Color:
    """The categories that occur, with their colours."""
    found = {category(run) for run in runs}
    domain = [name for name in CATEGORIES if name in found]
    colors = [_SHADES[name][0] for name in domain]
    scale = alt.Scale(domain=domain, range=colors)
    return alt.Color(f"{field}:N", scale=scale, legend=legend_above(5))


def legend_below(columns: int) -> alt.Legend:
    """A second legend, of shapes, where it does not run into the first."""
    return legend_above(
        columns, orient="bottom", symbolFillColor=FAINT, symbolStrokeColor=FAINT, offset=4
    )


def legend_above(columns: int, **looks: Any) -> alt.Legend:  # noqa: ANN401 (Altair's own)
    """A legend in rows above the panels."""
    return alt.Legend(
        title=None,
        columns=columns,
        columnPadding=24,
        symbolStrokeWidth=2.5,
        symbolOpacity=1,
        labelLimit=420,
        **{"orient": "top", "symbolSize": 140, **looks},
    )
