"""A whole study as a page, and its files."""

from __future__ import annotations

import pytest

from tests.builders.study_records import study


@pytest.fixture(scope="session")
def page():
    from isotone.reporting.study.page import study_page

    records = study(sizes=(64,), layers=range(0, 30, 3), seeds=range(2))
    return study_page(records, title="A <title> & more", command="isotone report 'a b' out.html")


@pytest.fixture(scope="session")
def files(page, tmp_path_factory):
    from isotone.reporting.page import write_page

    return write_page(page, tmp_path_factory.mktemp("report") / "made" / "study.html")
