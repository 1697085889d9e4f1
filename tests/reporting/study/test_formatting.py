"""Numbers as text."""

from __future__ import annotations

from isotone.reporting.study.formatting import spans


def test_spans():
    assert spans([8]) == "8"
    assert spans([29, 28]) == "28, 29"
    assert spans([1, 2, 3, 7, 9, 8]) == "1–3, 7–9"
