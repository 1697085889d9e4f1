"""`isotone.report` as a function; tests/commands/test_report.py has what it refuses."""

from __future__ import annotations

import isotone
from tests.builders.study_records import times, unedited, write


def test_a_report_says_what_it_wrote(tmp_path):
    results = write(tmp_path / "results", [unedited(), times("permute", 3, 8)])
    made = isotone.report(str(results), tmp_path / "page.html", "A title")
    assert made.charts == ("sensitivity", "order", "error")
    names = [f"page/{name}.{kind}" for name in made.charts for kind in ("png", "csv")]
    assert made.files == tuple(tmp_path / name for name in ("page.html", *names))
    assert made.html == tmp_path / "page.html"
    page = made.html.read_text("utf-8")
    assert "<title>A title</title>" in page
    assert f"isotone report {results} {made.html} --title &#39;A title&#39;" in page
