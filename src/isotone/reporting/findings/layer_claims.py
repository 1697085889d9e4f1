"""The paper's claims on single layers: which edits ruin a model, and which are hardly noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from isotone.reporting.findings.claim import NOT_MEASURED, Claim, verdict
from isotone.reporting.study.formatting import ratio_text
from isotone.reporting.study.runs import MeasuredRun, geometric_median, single_layers

ORDERS_OF_MAGNITUDE = 10.0
HARDLY = 1.15
"""Times the unedited perplexity: what counts as orders of magnitude, and as hardly noticed."""


@dataclass(frozen=True)
class _Bound:
    holds: Callable[[float], bool]
    words: str


_RUINED = _Bound(lambda ratio: ratio >= ORDERS_OF_MAGNITUDE, "ten times or more")
_BORNE = _Bound(lambda ratio: ratio < HARDLY, f"below +{HARDLY - 1:.0%}")


def scrambling(runs: Sequence[MeasuredRun]) -> Claim:
    """Return whether scrambling the order ruins middle and late layers, with the moments restored.

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
        "Scrambling the order of the values, their mean and variance kept, raises perplexity by "
        "orders of magnitude."
    )
    found = [run for run in _drawn(runs, "permute", "moments") if not _is_early(run)]
    words = "of the middle and late layers raise perplexity ten times or more when scrambled."
    return _judged("scrambling", paper, found, _RUINED, words)


def keeping(runs: Sequence[MeasuredRun]) -> Claim:
    """Return whether new values in the old order are hardly noticed, with the moments restored.

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs of a study.

    Returns
    -------
    Claim
        The claim.
    """
    paper = "New values in the old order, mean and variance kept, are hardly noticed."
    found = _drawn(runs, "sorted_", "moments")
    late = [run for run in found if not _is_early(run)]
    words = f"of the middle and late layers stay below +{HARDLY - 1:.0%}."
    claim = _judged("keeping", paper, late, _BORNE, words)
    early = [run for run in found if _is_early(run)]
    return replace(claim, shows=f"{claim.shows} {_early(early)}") if early else claim


def uncorrected(runs: Sequence[MeasuredRun]) -> Claim:
    """Return whether the same edits ruin the model without an affine correction.

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs of a study.

    Returns
    -------
    Claim
        The claim.
    """
    paper = "Without an affine correction the same order-keeping edits ruin the model."
    found = _drawn(runs, "sorted_", "none")
    words = "of the layers raise perplexity ten times or more."
    return _judged("uncorrected", paper, found, _RUINED, words)


def _drawn(runs: Sequence[MeasuredRun], edit: str, correction: str) -> list[MeasuredRun]:
    """Return single-layer runs of edits whose names begin so, without those scaled to an error."""
    return [
        run
        for run in single_layers(runs)
        if run.correction == correction
        and (run.edit.startswith(edit) if edit.endswith("_") else run.edit == edit)
    ]


def _is_early(run: MeasuredRun) -> bool:
    """Return whether the layer is in the first third of the depth."""
    return 3 * run.layer < run.n_layers


def _judged(
    name: str, paper: str, found: Sequence[MeasuredRun], bound: _Bound, words: str
) -> Claim:
    """Return the claim that layers are within a bound; a layer counts once for each edit and K."""
    if not found:
        return Claim(name, paper, NOT_MEASURED, ())
    within = [bound.holds(ratio) for ratio in _by_layer(found).values()]
    share = sum(within) / len(within)
    edits = sorted({(run.k, run.variant) for run in found})
    figures = [
        _measured([run for run in found if (run.k, run.variant) == edit], bound) for edit in edits
    ]
    return Claim(name, paper, f"{verdict(share)} {_amount(share)} {words}", tuple(figures))


def _measured(runs: Sequence[MeasuredRun], bound: _Bound) -> str:
    """Return the figures of one edit at one K as a line."""
    ratios = [run.perplexity_ratio for run in runs]
    low, typical, high = (
        ratio_text(each) for each in (min(ratios), geometric_median(ratios), max(ratios))
    )
    within = [bound.holds(ratio) for ratio in _by_layer(runs).values()]
    return (
        f"K = {runs[0].k}, {runs[0].variant}: {typical} times the unedited perplexity ({low} to "
        f"{high}); {bound.words} in {sum(within)} of {len(within)} layers "
        f"({sum(within) / len(within):.0%})"
    )


def _by_layer(runs: Iterable[MeasuredRun]) -> dict[tuple[int, str, int], float]:
    """Return the typical perplexity ratio by K, edit and layer."""
    grouped: dict[tuple[int, str, int], list[float]] = {}
    for run in runs:
        grouped.setdefault((run.k, run.variant, run.layer), []).append(run.perplexity_ratio)
    return {place: geometric_median(ratios) for place, ratios in grouped.items()}


def _early(runs: Sequence[MeasuredRun]) -> str:
    """Return what the first third of the layers shows, with the worst layer by name."""
    found = _by_layer(runs)
    worst = max(found, key=lambda place: found[place])
    n_borne = sum(_BORNE.holds(ratio) for ratio in found.values())
    k, variant, layer = worst
    return (
        f"Of the early ones {n_borne} of {len(found)} do; the worst, layer {layer} with {variant} "
        f"at K = {k}, goes to {ratio_text(found[worst])} times."
    )


def _amount(share: float) -> str:
    return "All" if share == 1.0 else "None" if share == 0.0 else f"{share:.0%}"
