"""The paper's claims, held against what was measured: records in, sentences out.

Claims are those of arXiv 2603.17917; every word on what this model shows is chosen by its figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from isotone.reporting.findings.equal_error import EqualErrorRow, Explained, equal_errors, explained
from isotone.reporting.findings.survival import Survival, grown, survivals
from isotone.reporting.study.families import BROKEN, KEPT, corrected
from isotone.reporting.study.formatting import times
from isotone.reporting.study.runs import StudyRun, middle, single_layers

ORDERS_OF_MAGNITUDE = 10.0
HARDLY = 1.15
"""Times the unedited perplexity: what counts as orders of magnitude, and as hardly noticed."""


@dataclass(frozen=True)
class _Bound:
    holds: Callable[[float], bool]
    words: str


_RUINED = _Bound(lambda damage: damage >= ORDERS_OF_MAGNITUDE, "ten times or more")
_BORNE = _Bound(lambda damage: damage < HARDLY, f"below +{HARDLY - 1:.0%}")

NOT_MEASURED = "Not measured."


@dataclass(frozen=True)
class Claim:
    """A row of the table: what the paper says, what this model shows, by how much."""

    name: str
    paper: str
    shows: str
    figures: tuple[str, ...]

    @property
    def is_measured(self) -> bool:
        return bool(self.figures)


def claims(runs: Sequence[StudyRun]) -> list[Claim]:
    """All of them, in the paper's order; those that no run bears on say so."""
    return [scrambling(runs), keeping(runs), uncorrected(runs), collapsing(runs), ranking(runs)]


def scrambling(runs: Sequence[StudyRun]) -> Claim:
    """Whether scrambling the order ruins middle and late layers, the moments restored."""
    paper = (
        "Scrambling the order of the values, their mean and variance kept, raises perplexity by "
        "orders of magnitude."
    )
    found = [run for run in _drawn(runs, "permute", "moments") if not _is_early(run)]
    words = "of the middle and late layers raise perplexity ten times or more when scrambled."
    return _judged("scrambling", paper, found, _RUINED, words)


def keeping(runs: Sequence[StudyRun]) -> Claim:
    """Whether new values in the old order are hardly noticed, the moments restored."""
    paper = "New values in the old order, mean and variance kept, are hardly noticed."
    found = _drawn(runs, "sorted_", "moments")
    late = [run for run in found if not _is_early(run)]
    words = f"of the middle and late layers stay below +{HARDLY - 1:.0%}."
    claim = _judged("keeping", paper, late, _BORNE, words)
    early = [run for run in found if _is_early(run)]
    return replace(claim, shows=f"{claim.shows} {_early(early)}") if early else claim


def uncorrected(runs: Sequence[StudyRun]) -> Claim:
    """Whether the same edits ruin the model without an affine correction."""
    paper = "Without an affine correction the same order-keeping edits ruin the model."
    found = _drawn(runs, "sorted_", "none")
    words = "of the layers raise perplexity ten times or more."
    return _judged("uncorrected", paper, found, _RUINED, words)


def collapsing(runs: Sequence[StudyRun]) -> Claim:
    """Whether a correction delays the collapse of progressive replacement."""
    paper = (
        "Replacing many layers makes the scale drift until the model collapses; an affine "
        "correction delays that."
    )
    pairs = _pairs([run for run in runs if "order" in run.keeps])
    delayed = [with_it.median > without.median for without, with_it in pairs]
    shows = (
        f"{_verdict(sum(delayed) / len(pairs))} A correction delays it in {sum(delayed)} of "
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


def ranking(runs: Sequence[StudyRun]) -> Claim:
    """Whether the order explains the damage, or the size of the error."""
    paper = "What matters is the order of the values, not the values themselves."
    rows = [row for row in equal_errors(runs) if {KEPT, BROKEN} <= row.cells.keys()]
    worse = [row.cells[BROKEN].damage > row.cells[KEPT].damage for row in rows]
    shows = (
        f"{_verdict(sum(worse) / len(rows))} At the same relative error a broken order costs more "
        f"than a kept one at {sum(worse)} of {len(rows)} errors."
        if rows
        else "At equal errors: not measured."
    )
    sizes = sorted({row.k for row in rows})
    figures = (
        *(_at_equal_errors([row for row in rows if row.k == k]) for k in sizes),
        *map(_correlated, explained(runs)),
    )
    return Claim("ranking", paper, shows if figures else NOT_MEASURED, figures)


def _drawn(runs: Sequence[StudyRun], edit: str, correction: str) -> list[StudyRun]:
    """Single layers, edits whose names begin so, not scaled to an error."""
    return [
        run
        for run in single_layers(runs)
        if run.correction == correction
        and (run.edit.startswith(edit) if edit.endswith("_") else run.edit == edit)
    ]


def _is_early(run: StudyRun) -> bool:
    """In the first third of the depth."""
    return 3 * run.layer < run.n_layers


def _judged(name: str, paper: str, found: Sequence[StudyRun], bound: _Bound, words: str) -> Claim:
    """The claim that layers are within a bound, each layer counting once for each edit and K."""
    if not found:
        return Claim(name, paper, NOT_MEASURED, ())
    within = [bound.holds(damage) for damage in _by_layer(found).values()]
    share = sum(within) / len(within)
    edits = sorted({(run.k, run.variant) for run in found})
    figures = [
        _measured([run for run in found if (run.k, run.variant) == edit], bound) for edit in edits
    ]
    return Claim(name, paper, f"{_verdict(share)} {_amount(share)} {words}", tuple(figures))


def _measured(runs: Sequence[StudyRun], bound: _Bound) -> str:
    """Of one edit at one K."""
    damages = [run.damage for run in runs]
    low, typical, high = (times(each) for each in (min(damages), middle(damages), max(damages)))
    within = [bound.holds(damage) for damage in _by_layer(runs).values()]
    return (
        f"K = {runs[0].k}, {runs[0].variant}: {typical} times the unedited perplexity ({low} to "
        f"{high}); {bound.words} in {sum(within)} of {len(within)} layers "
        f"({sum(within) / len(within):.0%})"
    )


def _by_layer(runs: Iterable[StudyRun]) -> dict[tuple[int, str, int], float]:
    """The typical damage by K, edit and layer."""
    grouped: dict[tuple[int, str, int], list[float]] = {}
    for run in runs:
        grouped.setdefault((run.k, run.variant, run.layer), []).append(run.damage)
    return {place: middle(damages) for place, damages in grouped.items()}


def _early(runs: Sequence[StudyRun]) -> str:
    """What the first third of the layers shows, its worst layer by name."""
    found = _by_layer(runs)
    worst = max(found, key=lambda place: found[place])
    n_borne = sum(_BORNE.holds(damage) for damage in found.values())
    k, variant, layer = worst
    return (
        f"Of the early ones {n_borne} of {len(found)} do; the worst, layer {layer} with {variant} "
        f"at K = {k}, goes to {times(found[worst])} times."
    )


def _pairs(runs: Sequence[StudyRun]) -> list[tuple[Survival, Survival]]:
    """Without correction and with each, of the same K, order and edit."""
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
    """Of one K and one correction: the medians of every order and edit, from least to most."""
    first = min(found, key=lambda each: each.median)
    last = max(found, key=lambda each: each.median)
    ends = dict.fromkeys((first.shown(first.median), last.shown(last.median)))
    growths = [each.growth for each in found if each.growth is not None]
    ranged = dict.fromkeys(map(grown, (min(growths), max(growths)))) if growths else {}
    return (
        f"K = {first.k}, {corrected(first.correction)}: doubled after {' to '.join(ends)} replaced "
        "layers" + (f", the stream's RMS then {' to '.join(ranged)}" if growths else "")
    )


def _at_equal_errors(rows: Sequence[EqualErrorRow]) -> str:
    """How much more the broken order costs, at the least and the largest error of one K."""
    least, most = rows[0], rows[-1]
    pairs = [(row.cells[KEPT].damage, row.cells[BROKEN].damage) for row in (least, most)]
    (kept_least, broken_least), (kept_most, broken_most) = pairs
    return (
        f"K = {least.k}: {times(broken_least)} times with the order broken and "
        f"{times(kept_least)} with it kept at error {least.at_error:g}, "
        f"{times(broken_most)} and {times(kept_most)} at error {most.at_error:g}"
    )


def _correlated(found: Explained) -> str:
    error, order = (_signed(value) for value in (found.with_error, found.with_order))
    within = [_signed(value) for value in found.within_layers if value is not None]
    medians = f" (within a layer, median: {' and '.join(within)})" if len(within) == 2 else ""
    return (
        f"K = {found.k}, {found.n} single-layer runs with moments restored: rank correlation of "
        f"damage with relative error {error}, with the codebook's rho {order}{medians}"
    )


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def _verdict(share: float) -> str:
    if share >= 0.9:
        return "Holds."
    return "Holds in part." if share > 0.1 else "Does not hold."


def _amount(share: float) -> str:
    return "All" if share == 1.0 else "None" if share == 0.0 else f"{share:.0%}"
