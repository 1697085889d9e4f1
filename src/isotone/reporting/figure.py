"""A chart with what is said about it and the rows it was drawn from."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import altair as alt


@dataclass(frozen=True)
class Figure:
    """One chart of a page.

    name: of its files. look: one sentence, what to look for. rows: its data, all of the same keys.
    """

    name: str
    heading: str
    look: str
    caption: str
    chart: alt.TopLevelMixin
    rows: Sequence[Mapping[str, object]]


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as CSV with a header, lines ended as RFC 4180 says; None is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
