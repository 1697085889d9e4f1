"""Claims on whole studies, by hand."""

from __future__ import annotations

from isotone.reporting.findings.claim import NOT_MEASURED
from isotone.reporting.findings.claims import claims, collapsing, ranking
from isotone.reporting.findings.correlation import rank_correlation
from isotone.reporting.findings.equal_error import ratio_correlations
from tests.builders.study_findings import EQUAL, REPLACED
from tests.builders.study_records import measured, replaced, times


def test_collapse_is_compared_pair_by_pair():
    claim = collapsing(measured(*REPLACED))
    assert claim.shows.startswith("Holds. A correction delays it in 1 of 1 comparisons")
    assert claim.figures == (
        "K = 64, uncorrected: doubled after 1.5 replaced layers, the stream's RMS then not finite",
        "K = 64, moments restored: doubled after 5 replaced layers, the stream's RMS then × 1.4",
    )
    undone = collapsing(measured(*replaced([3.0], correction="none"), *replaced([2.5])))
    assert undone.shows.startswith("Does not hold.")


def test_ranking_by_hand():
    claim = ranking(measured(*EQUAL))
    assert claim.shows == (
        "Holds. At the same relative error a broken order costs more than a kept one at "
        "2 of 2 errors."
    )
    # Each damage stands for two layers, in the order 1.1, 1.2, 1.4, 1.5, 1.8, 3.0.
    error = rank_correlation([0.1, 0.1, 0.4, 0.1, 0.4, 0.4], [1, 2, 3, 4, 5, 6])
    order = rank_correlation([1, 0.9, 1, 0.5, 0.9, 0.5], [1, 2, 3, 4, 5, 6])
    assert claim.figures == (
        "K = 64: 1.500 times with the order broken and 1.100 with it kept at error 0.1, 3.00 and "
        "1.400 at error 0.4",
        "K = 64, 12 single-layer runs with moments restored: rank correlation of damage with "
        f"relative error {error:+.2f}, with the codebook's rho {order:+.2f} (within a layer, "
        f"median: {error:+.2f} and {order:+.2f})",
    )
    (found,) = ratio_correlations(measured(*EQUAL))
    assert found.with_error > 0 > found.with_order


def test_what_was_not_measured_is_said():
    found = claims(measured(times("even_spacing", 1.0, 8, correction="range")))
    assert [claim.shows for claim in found[:4]] == [NOT_MEASURED] * 4
    assert not any(claim.figures for claim in found)
