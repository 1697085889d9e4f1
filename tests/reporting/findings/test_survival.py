"""Survival of progressive replacements, by hand."""

from __future__ import annotations

import math

import pytest

from isotone.reporting.findings.survival import survivals
from tests.builders.study_findings import REPLACED
from tests.builders.study_records import measured


def test_survival_by_hand():
    none, moments = survivals(measured(*REPLACED))
    assert (none.correction, none.survivals, none.median) == ("none", (1, 2), 1.5)
    assert none.growth == math.inf
    assert moments.survivals == (3, 5, math.inf)
    assert moments.median == 5
    assert moments.growth == pytest.approx(1.4)  # of 1.3 and 1.5
    assert moments.layers_text(math.inf) == "> 30"
    assert [moments.layers_text(n) for n in (3, 1.5)] == ["3", "1.5"]
