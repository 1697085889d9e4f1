"""What edits cost at the same relative error, by hand."""

from __future__ import annotations

import pytest

from isotone.reporting.findings.equal_error import equal_errors
from isotone.reporting.study.families import BROKEN, KEPT, NOISE
from isotone.reporting.study.page import study_page
from tests.builders.study_findings import EQUAL
from tests.builders.study_records import measured, times, unedited


def test_damage_at_equal_errors():
    least, most = equal_errors(measured(*EQUAL))
    assert (least.k, least.at_error, most.at_error) == (64, 0.1, 0.4)
    assert list(most.cells) == [KEPT, NOISE, BROKEN]
    assert most.cells[KEPT].perplexity_ratio == pytest.approx(1.4)
    assert most.cells[BROKEN].perplexity_ratio == pytest.approx(3.0)
    assert (most.cells[NOISE].spearman, most.cells[NOISE].n) == (0.9, 2)


def test_runs_that_missed_their_error_are_not_compared_at_it():
    missed = times("power_warp", 9.0, 8, at_error=0.8, relative_error=0.6)
    near = times("permute", 3.0, 8, at_error=0.8, relative_error=0.81)
    (row,) = equal_errors(measured(missed, near))
    assert {name: cell.perplexity_ratio for name, cell in row.cells.items()} == {BROKEN: 3.0}
    page = study_page([unedited(), missed, near], title=None, command="")
    (note,) = [table.note for table in page.tables if table.heading.startswith("Damage at")]
    assert note.endswith("Left out: 1 runs that missed their error by more than 5%.")
