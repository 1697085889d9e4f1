"""The page of a frontier that was measured before: its chart, its data, the command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isotone.reporting.figure import Figure
from isotone.reporting.frontier.chart import frontier_chart, protocol_caption
from isotone.reporting.page import Page

_LEFT_OUT = ("arguments", "protocol")  # no scalars, or the same in all rows


def frontier_page(points: Sequence[Mapping[str, Any]], *, title: str | None, command: str) -> Page:
    """Return the page of a frontier.

    Parameters
    ----------
    points : sequence of dict
        The lines of points.jsonl.
    title : str or None
        The title; None takes one from the model.
    command : str
        The command that makes the page again.

    Returns
    -------
    Page
        The page.
    """
    protocol = points[0]["protocol"]
    title = title or f"{protocol['model']}: quality over size"
    figure = Figure(
        name="frontier",
        heading="The frontier",
        guide="Look for the lowest line at the size that fits.",
        caption="",
        chart=frontier_chart(points, title=title, caption=protocol_caption(points[0])),
        rows=[{key: point[key] for key in point if key not in _LEFT_OUT} for point in points],
    )
    return Page(
        title=title,
        facts=[("Model", str(protocol["model"])), ("Points", str(len(points)))],
        tables=[],
        figures=[figure],
        left_out=[],
        command=command,
    )
