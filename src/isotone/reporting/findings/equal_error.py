"""Order or error size: what different edits cost at the same relative error of the weights."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from isotone.reporting.findings.correlation import rank_correlation
from isotone.reporting.study.families import CATEGORIES, category
from isotone.reporting.study.runs import MeasuredRun, by_k, geometric_median, single_layers

TOLERANCE = 0.05
"""How far a run may be from the error that was asked for, relative to it."""


@dataclass(frozen=True)
class EqualErrorCell:
    """The runs of one category at one relative error.

    Attributes
    ----------
    perplexity_ratio : float
        The median of perplexity over unedited perplexity.
    spearman : float or None
        The median of Spearman's rho, as measured on the codebooks.
    n : int
        The number of runs.
    """

    perplexity_ratio: float
    spearman: float | None
    n: int


@dataclass(frozen=True)
class EqualErrorRow:
    """One K and one relative error.

    Attributes
    ----------
    k : int
        The K of the clustering.
    at_error : float
        The relative error that was asked for.
    cells : dict of str to EqualErrorCell
        The categories that were measured at it, by name.
    """

    k: int
    at_error: float
    cells: dict[str, EqualErrorCell]


@dataclass(frozen=True)
class RatioCorrelations:
    """What the perplexity ratio goes with, over single-layer runs with the moments restored.

    Attributes
    ----------
    k : int
        The K of the clustering.
    n : int
        The number of runs.
    with_error, with_order : float or None
        Its rank correlation with the relative error and with Spearman's rho of the codebook, over
        all runs together; None where one of the two does not vary.
    within_layers : (float or None, float or None)
        The medians of the same two within each layer, since layers differ in what they tolerate.
    """

    k: int
    n: int
    with_error: float | None
    with_order: float | None
    within_layers: tuple[float | None, float | None]


def equal_errors(runs: Sequence[MeasuredRun]) -> list[EqualErrorRow]:
    """Return the runs that were scaled to a relative error, by K and by that error.

    An edit whose own error is smaller cannot be scaled to a larger one, so runs that missed their
    error are left out.

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs of a study.

    Returns
    -------
    list of EqualErrorRow
        The rows, by ascending K and error.
    """
    by_place: dict[tuple[int, float], dict[str, list[MeasuredRun]]] = {}
    for run in single_layers(runs, at_error=True):
        if missed_error(run):
            continue
        place = run.k, run.at_error or 0.0
        by_place.setdefault(place, {}).setdefault(category(run), []).append(run)
    return [
        EqualErrorRow(*place, {name: _cell(own[name]) for name in CATEGORIES if name in own})
        for place, own in sorted(by_place.items())
    ]


def missed_error(run: MeasuredRun) -> bool:
    """Return whether a run was to have a relative error, and has another.

    Parameters
    ----------
    run : MeasuredRun
        The run.

    Returns
    -------
    bool
        Whether the errors differ by more than `TOLERANCE`.
    """
    asked = run.at_error
    return asked is not None and abs(run.relative_error / asked - 1) > TOLERANCE


def ratio_correlations(runs: Sequence[MeasuredRun]) -> list[RatioCorrelations]:
    """Return, for each K, what the perplexity ratio of single-layer runs goes with.

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs of a study.

    Returns
    -------
    list of RatioCorrelations
        One for each K, ascending.
    """
    known = [
        run
        for run in single_layers(runs, at_error=None)
        if run.correction == "moments" and run.spearman is not None
    ]
    return [_explained(k, own) for k, own in by_k(known).items()]


def _explained(k: int, runs: Sequence[MeasuredRun]) -> RatioCorrelations:
    layers = sorted({run.layer for run in runs})
    within = [_correlations([run for run in runs if run.layer == layer]) for layer in layers]
    medians = [_median([pair[i] for pair in within]) for i in (0, 1)]
    return RatioCorrelations(
        k, len(runs), *_correlations(runs), within_layers=(medians[0], medians[1])
    )


def _correlations(runs: Sequence[MeasuredRun]) -> tuple[float | None, float | None]:
    ratios = [run.perplexity_ratio for run in runs]
    errors = [run.relative_error for run in runs]
    orders = [run.spearman or 0.0 for run in runs]
    return rank_correlation(errors, ratios), rank_correlation(orders, ratios)


def _cell(runs: Sequence[MeasuredRun]) -> EqualErrorCell:
    orders = [run.spearman for run in runs if run.spearman is not None]
    rho = statistics.median(orders) if orders else None
    return EqualErrorCell(geometric_median(run.perplexity_ratio for run in runs), rho, len(runs))


def _median(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else None
