"""A chart with its texts and the rows that it was drawn from."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import altair as alt


@dataclass(frozen=True)
class Figure:
    """One chart of a page.

    Attributes
    ----------
    name : str
        The name of the chart's files.
    heading : str
        The title above the chart.
    guide : str
        One sentence that says what to look for.
    caption : str
        The explanation below the chart.
    chart : altair.TopLevelMixin
        The chart.
    rows : sequence of dict
        The data of the chart, all rows with the same keys.
    """

    name: str
    heading: str
    guide: str
    caption: str
    chart: alt.TopLevelMixin
    rows: Sequence[Mapping[str, object]]


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as CSV with a header.

    Parameters
    ----------
    rows : sequence of dict
        Rows with the same keys; None becomes an empty field.

    Returns
    -------
    str
        The CSV; its lines end as RFC 4180 says.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
