"""The paper's claims, held against what was measured: records in, sentences out.

Claims are those of arXiv 2603.17917; every word on what this model shows is chosen by its figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from isotone.report.equal_error import EqualErrorRow, Explained, equal_errors, explained
from isotone.report.study.families import BROKEN, KEPT, corrected
from isotone.report.study.runs import StudyRun, by_size, middle, single_layers
from isotone.report.study.telling import times
from isotone.report.survival import Survival, grown, survivals

ORDERS_OF_MAGNITUDE = 10.0
HARDLY = 1.15
"""Times the unedited perplexity: what counts as orders of magnitude, and as hardly noticed."""

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
    ruined = _share(found, lambda damage: damage >= ORDERS_OF_MAGNITUDE)
    words = "of the middle and late layers raise perplexity ten times or more when scrambled."
    return Claim(
        "scrambling",
        paper,
        f"{_verdict(ruined)} {_amount(ruined)} {words}" if found else NOT_MEASURED,
        tuple(
            f"K = {k}: {_range(own)}; ten times or more in "
            f"{_layers(own, lambda damage: damage >= ORDERS_OF_MAGNITUDE)}"
            for k, own in by_size(found).items()
        ),
    )


def keeping(runs: Sequence[StudyRun]) -> Claim:
    """Whether new values in the old order are hardly noticed, the moments restored."""
    paper = "New values in the old order, mean and variance kept, are hardly noticed."
    found = _drawn(runs, "sorted_", "moments")
    late = [run for run in found if not _is_early(run)]
    borne = _share(late, lambda damage: damage < HARDLY)
    words = f"of the middle and late layers stay below +{HARDLY - 1:.0%}."
    shows = f"{_verdict(borne)} {_amount(borne)} {words}" if late else NOT_MEASURED
    if any(map(_is_early, found)):
        shows += " " + _early(found)
    return Claim(
        "keeping",
        paper,
        shows,
        tuple(
            f"K = {k}: {_range(own)}; below +{HARDLY - 1:.0%} in "
            f"{_layers(own, lambda damage: damage < HARDLY)}"
            for k, own in by_size(late).items()
        ),
    )


def uncorrected(runs: Sequence[StudyRun]) -> Claim:
    """Whether the same edits ruin the model without an affine correction."""
    paper = "Without an affine correction the same order-keeping edits ruin the model."
    found = _drawn(runs, "sorted_", "none")
    ruined = _share(found, lambda damage: damage >= ORDERS_OF_MAGNITUDE)
    words = "of the layers raise perplexity ten times or more."
    return Claim(
        "uncorrected",
        paper,
        f"{_verdict(ruined)} {_amount(ruined)} {words}" if found else NOT_MEASURED,
        tuple(
            f"K = {k}: {_range(own)}; ten times or more in "
            f"{_layers(own, lambda damage: damage >= ORDERS_OF_MAGNITUDE)}"
            for k, own in by_size(found).items()
        ),
    )


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


def _by_layer(runs: Iterable[StudyRun]) -> dict[tuple[int, int], float]:
    """The typical damage of each layer, by K and layer."""
    grouped: dict[tuple[int, int], list[float]] = {}
    for run in runs:
        grouped.setdefault((run.k, run.layer), []).append(run.damage)
    return {place: middle(damages) for place, damages in grouped.items()}


def _share(runs: Sequence[StudyRun], holds: Callable[[float], bool]) -> float:
    found = [holds(damage) for damage in _by_layer(runs).values()]
    return sum(found) / len(found) if found else 0.0


def _layers(runs: Sequence[StudyRun], holds: Callable[[float], bool]) -> str:
    found = [holds(damage) for damage in _by_layer(runs).values()]
    return f"{sum(found)} of {len(found)} layers ({sum(found) / len(found):.0%})"


def _range(runs: Sequence[StudyRun]) -> str:
    damages = [run.damage for run in runs]
    low, typical, high = min(damages), middle(damages), max(damages)
    return f"{times(typical)} times the unedited perplexity ({times(low)} to {times(high)})"


def _early(runs: Sequence[StudyRun]) -> str:
    """What the first third of the layers shows, its worst layer by name."""
    found = {place: d for place, d in _by_layer(runs).items() if place in _early_places(runs)}
    worst = max(found, key=lambda place: found[place])
    n_borne = sum(damage < HARDLY for damage in found.values())
    return (
        f"Of the early layers {n_borne} of {len(found)} do; the worst, layer {worst[1]} at "
        f"K = {worst[0]}, goes to {times(found[worst])} times."
    )


def _early_places(runs: Sequence[StudyRun]) -> set[tuple[int, int]]:
    return {(run.k, run.layer) for run in runs if _is_early(run)}


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
