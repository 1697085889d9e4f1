"""The paper's claims, compared with what was measured: runs in, sentences out.

The claims are those of arXiv 2603.17917. Every word on what this model shows is chosen by its
figures.
"""

from __future__ import annotations

from collections.abc import Sequence

from isotone.reporting.findings.claim import NOT_MEASURED, Claim, verdict
from isotone.reporting.findings.equal_error import (
    EqualErrorRow,
    RatioCorrelations,
    equal_errors,
    ratio_correlations,
)
from isotone.reporting.findings.layer_claims import keeping, scrambling, uncorrected
from isotone.reporting.findings.survival import Survival, growth_text, survivals
from isotone.reporting.study.families import BROKEN, KEPT, correction_text
from isotone.reporting.study.formatting import ratio_text
from isotone.reporting.study.runs import MeasuredRun


def claims(runs: Sequence[MeasuredRun]) -> list[Claim]:
    """Return all claims in the paper's order; those that no run bears on say so.

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs of a study.

    Returns
    -------
    list of Claim
        The five claims.
    """
    return [scrambling(runs), keeping(runs), uncorrected(runs), collapsing(runs), ranking(runs)]


def collapsing(runs: Sequence[MeasuredRun]) -> Claim:
    """Return whether a correction delays the collapse of progressive replacement.

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs of a study.

    Returns
    -------
    Claim
        The claim.
    """
    paper = (
        "Replacing many layers makes the scale drift until the model collapses; an affine "
        "correction delays that."
    )
    pairs = _pairs([run for run in runs if "order" in run.keeps])
    delayed = [with_it.median > without.median for without, with_it in pairs]
    shows = (
        f"{verdict(sum(delayed) / len(pairs))} A correction delays it in {sum(delayed)} of "
        f"{len(pairs)} comparisons of the same K, order and edit."
        if pairs
        else NOT_MEASURED
    )
    compared = {found: None for pair in pairs for found in pair}
    cells = dict.fromkeys((found.k, found.correction) for found in compared)
    figures = [
        _doubling([found for found in compared if (found.k, found.correction) == cell])
        for cell in sorted(cells, key=lambda cell: (cell[0], cell[1] != "none", cell[1]))
    ]
    return Claim("collapsing", paper, shows, tuple(figures))


def ranking(runs: Sequence[MeasuredRun]) -> Claim:
    """Return whether the order explains the perplexity ratio, or the size of the error.

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs of a study.

    Returns
    -------
    Claim
        The claim.
    """
    paper = "What matters is the order of the values, not the values themselves."
    rows = [row for row in equal_errors(runs) if {KEPT, BROKEN} <= row.cells.keys()]
    worse = [row.cells[BROKEN].perplexity_ratio > row.cells[KEPT].perplexity_ratio for row in rows]
    shows = (
        f"{verdict(sum(worse) / len(rows))} At the same relative error a broken order costs more "
        f"than a kept one at {sum(worse)} of {len(rows)} errors."
        if rows
        else "At equal errors: not measured."
    )
    sizes = sorted({row.k for row in rows})
    figures = (
        *(_at_equal_errors([row for row in rows if row.k == k]) for k in sizes),
        *map(_correlated, ratio_correlations(runs)),
    )
    return Claim("ranking", paper, shows if figures else NOT_MEASURED, figures)


def _pairs(runs: Sequence[MeasuredRun]) -> list[tuple[Survival, Survival]]:
    """Return the survivals without a correction and with each, of the same K, order and edit."""
    found = survivals(runs)
    return [
        (without, with_it)
        for without in found
        for with_it in found
        if without.correction == "none" != with_it.correction
        and (without.k, without.order, without.variant)
        == (with_it.k, with_it.order, with_it.variant)
    ]


def _doubling(found: Sequence[Survival]) -> str:
    """Return the medians of every order and edit, of one K and one correction, as a line."""
    first = min(found, key=lambda each: each.median)
    last = max(found, key=lambda each: each.median)
    ends = dict.fromkeys((first.layers_text(first.median), last.layers_text(last.median)))
    growths = [each.growth for each in found if each.growth is not None]
    ranged = dict.fromkeys(map(growth_text, (min(growths), max(growths)))) if growths else {}
    return (
        f"K = {first.k}, {correction_text(first.correction)}: doubled after {' to '.join(ends)} "
        "replaced layers" + (f", the stream's RMS then {' to '.join(ranged)}" if growths else "")
    )


def _at_equal_errors(rows: Sequence[EqualErrorRow]) -> str:
    """Return how much more the broken order costs, at the least and the largest error of one K."""
    least, most = rows[0], rows[-1]
    pairs = [
        (row.cells[KEPT].perplexity_ratio, row.cells[BROKEN].perplexity_ratio)
        for row in (least, most)
    ]
    (kept_least, broken_least), (kept_most, broken_most) = pairs
    return (
        f"K = {least.k}: {ratio_text(broken_least)} times with the order broken and "
        f"{ratio_text(kept_least)} with it kept at error {least.at_error:g}, "
        f"{ratio_text(broken_most)} and {ratio_text(kept_most)} at error {most.at_error:g}"
    )


def _correlated(found: RatioCorrelations) -> str:
    error, order = (_signed(value) for value in (found.with_error, found.with_order))
    within = [_signed(value) for value in found.within_layers if value is not None]
    medians = f" (within a layer, median: {' and '.join(within)})" if len(within) == 2 else ""
    return (
        f"K = {found.k}, {found.n} single-layer runs with moments restored: rank correlation of "
        f"damage with relative error {error}, with the codebook's rho {order}{medians}"
    )


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"
