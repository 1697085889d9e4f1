"""Runs as charts and claims see them."""

from __future__ import annotations

import math

import pytest

from isotone.reporting.study.page import study_page
from isotone.reporting.study.runs import geometric_median, study_runs
from tests.builders.study_records import measured, run, unedited


def test_damage_is_against_the_unedited_model_of_the_same_clustering():
    found = study_runs(
        [unedited(16, 40.0), unedited(64, 20.0), run("permute", 80.0, k=16), run("permute", 80.0)]
    )
    assert [(each.k, each.perplexity_ratio) for each in found] == [(16, 2.0), (64, 4.0)]


def test_a_run_without_its_unedited_model_is_left_out_and_counted():
    records = [unedited(64), run("permute", 80.0, k=16), run("permute", 80.0)]
    assert [each.k for each in study_runs(records)] == [64]
    (line,) = [x for x in study_page(records, title=None, command="").left_out if "runs" in x]
    assert line.startswith("1 runs, whose clustering has no finite perplexity unedited")


@pytest.mark.parametrize("perplexity", [None, math.inf, math.nan])
def test_a_collapsed_model_is_worse_than_any_number(perplexity):
    record = run("permute", None)
    record["perplexity"] = perplexity
    assert measured(record)[0].perplexity_ratio == math.inf


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [([3.0], 3.0), ([1.0, 100.0], 10.0), ([1.0, 7.0, math.inf], 7.0), ([1.0, math.inf], math.inf)],
)
def test_the_median_of_multiples(ratios, expected):
    assert geometric_median(ratios) == expected
