"""Claims on single layers, by hand: of 30 layers, those from 10 on are middle and late."""

from __future__ import annotations

from isotone.reporting.findings.layer_claims import keeping, scrambling, uncorrected
from tests.builders.study_records import measured, times


def test_scrambling_counts_middle_and_late_layers_by_their_medians():
    claim = scrambling(
        measured(
            times("permute", 1000, 9),  # early
            times("permute", 4, 10, seed=0),
            times("permute", 100, 10, seed=1),  # with the other: 20
            times("permute", 2, 20),
            times("permute", 5000, 20, at_error=0.1),  # scaled: another question
            times("permute", 5000, 20, correction="none"),
            times("permute_window", 5000, 20),
        )
    )
    assert claim.shows.startswith("Holds in part. 50% of the middle and late layers")
    assert claim.figures == (
        "K = 64, permute: 4.00 times the unedited perplexity (2.00 to 100); ten times or more in "
        "1 of 2 layers (50%)",
    )


def test_keeping_says_what_early_layers_show():
    claim = keeping(
        measured(
            times("sorted_normal", 4, 1),
            times("sorted_uniform", 1.5, 2),
            times("sorted_normal", 1.1, 3),
            *(times("sorted_normal", 1.0625, layer) for layer in range(10, 29)),
            times("sorted_normal", 1.25, 29),
        )
    )
    assert claim.shows == (
        "Holds. 95% of the middle and late layers stay below +15%. Of the early ones 1 of 3 do; "
        "the worst, layer 1 with sorted_normal at K = 64, goes to 4.00 times."
    )
    assert claim.figures == (
        "K = 64, sorted_normal: 1.062 times the unedited perplexity (1.062 to 1.250); below +15% "
        "in 19 of 20 layers (95%)",
    )


def test_without_correction_collapsed_runs_count():
    claim = uncorrected(
        measured(
            times("sorted_normal", 1e6, 3, correction="none"),
            times("sorted_uniform", None, 20, correction="none"),
            times("sorted_normal", 1.0, 20),
        )
    )
    assert claim.shows.startswith("Holds. All of the layers")
    assert claim.figures == (
        "K = 64, sorted_normal: 1,000,000 times the unedited perplexity (1,000,000 to 1,000,000); "
        "ten times or more in 1 of 1 layers (100%)",
        "K = 64, sorted_uniform: not finite times the unedited perplexity (not finite to not "
        "finite); ten times or more in 1 of 1 layers (100%)",
    )


def test_an_edit_that_is_borne_is_not_drowned_by_one_that_ruins():
    """One layer, two edits: their common median would be ruined, and is none of the two."""
    claim = uncorrected(
        measured(
            times("sorted_normal", 1e8, 20, correction="none"),
            times("sorted_empirical", 1.1, 20, correction="none"),
        )
    )
    assert claim.shows.startswith("Holds in part. 50% of the layers")
    assert [line.split(":")[0] for line in claim.figures] == [
        "K = 64, sorted_empirical",
        "K = 64, sorted_normal",
    ]
