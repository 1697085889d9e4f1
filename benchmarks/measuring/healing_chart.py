"""Healing as a chart: the part of clustering's cost that is left, over the steps of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from isotone.reporting.style import FAINT, family_scales, styled

WIDTH, HEIGHT = 760, 400

Validations = Sequence[Mapping[str, Any]]


def healing_chart(
    curves: Mapping[str, Validations], *, title: str, caption: str
) -> alt.VConcatChart:
    """Draw one line for each healed model.

    A line starts at the whole of what clustering had cost in perplexity on held-out text, and falls
    as training regains it.

    Parameters
    ----------
    curves : dict of str to sequence of dict
        For each healed model by its name its validations, with a teacher, in their order.
    title : str
        The title of the chart.
    caption : str
        The text below it.

    Returns
    -------
    altair.VConcatChart
        The chart.
    """
    rows = [row for name, validations in curves.items() for row in _rows(name, validations)]
    color, shape = family_scales(rows)
    clicked = alt.selection_point(fields=["family"], bind="legend", name="clicked")
    lines = (
        alt.Chart({"values": rows})
        .mark_line(point=alt.OverlayMarkDef(size=80, filled=True), strokeWidth=2.5)
        .encode(
            x=alt.X("step:Q", title="steps", axis=alt.Axis(format="d")),
            y=alt.Y(
                "left:Q",
                title="left of the perplexity that clustering cost",
                axis=alt.Axis(format=".0%"),
                scale=alt.Scale(zero=True),
            ),
            color=color,
            shape=shape,
            opacity=alt.when(clicked).then(alt.value(1.0)).otherwise(alt.value(0.12)),
            tooltip=[
                alt.Tooltip("family:N", title="model"),
                alt.Tooltip("step:Q", title="step"),
                alt.Tooltip("left:Q", title="left", format=".1%"),
                alt.Tooltip("perplexity:Q", title="perplexity", format=".2f"),
                alt.Tooltip("teacher_perplexity:Q", title="of the dense model", format=".2f"),
                alt.Tooltip("loss:Q", title="KL from dense", format=".4f"),
            ],
        )
        .add_params(clicked, alt.selection_interval(bind="scales"))
        .properties(width=WIDTH, height=HEIGHT)
    )
    below = (
        alt.Chart({"values": [{}]})
        .mark_text(align="left", fontSize=13, color=FAINT, text=caption)
        .encode(x=alt.value(0))
        .properties(width=WIDTH, height=16)
    )
    return styled(alt.vconcat(lines, below, spacing=12).properties(title=title))


def _rows(name: str, validations: Validations) -> list[dict[str, Any]]:
    gap = validations[0]["perplexity"] - validations[0]["teacher_perplexity"]
    return [
        {
            **validation,
            "family": name,
            "kind": "swept",
            "left": (validation["perplexity"] - validation["teacher_perplexity"]) / gap,
        }
        for validation in validations
    ]
