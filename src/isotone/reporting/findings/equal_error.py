"""Order or error size: what different edits cost at the same relative error of the weights."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from isotone.reporting.findings.correlation import rank_correlation
from isotone.reporting.study.families import CATEGORIES, category
from isotone.reporting.study.runs import StudyRun, by_size, middle, single_layers

TOLERANCE = 0.05
"""Relative: how near a run must have come to the error that was asked for, to be compared at it."""


@dataclass(frozen=True)
class Cell:
    """Runs of one category at one error. spearman: their median, of the codebooks as measured."""

    damage: float
    spearman: float | None
    n: int


@dataclass(frozen=True)
class EqualErrorRow:
    """One K and one relative error, with a cell for each category that was measured at it."""

    k: int
    at_error: float
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Explained:
    """Rank correlations of damage, over single-layer runs with the moments restored.

    with_error, with_order: of damage with the relative error and with Spearman's rho of the
    codebook, all runs together; None where one does not vary. The layers differ in what they bear,
    so within_layers has the medians of the same two within each layer.
    """

    k: int
    n: int
    with_error: float | None
    with_order: float | None
    within_layers: tuple[float | None, float | None]


def equal_errors(runs: Sequence[StudyRun]) -> list[EqualErrorRow]:
    """Runs that were scaled to a relative error, by K and that error; those that missed it are not.

    An edit whose own error is smaller cannot be scaled to a larger one.
    """
    by_place: dict[tuple[int, float], dict[str, list[StudyRun]]] = {}
    for run in single_layers(runs, at_error=True):
        if has_missed(run):
            continue
        place = run.k, run.at_error or 0.0
        by_place.setdefault(place, {}).setdefault(category(run), []).append(run)
    return [
        EqualErrorRow(*place, {name: _cell(own[name]) for name in CATEGORIES if name in own})
        for place, own in sorted(by_place.items())
    ]


def has_missed(run: StudyRun) -> bool:
    """Whether a run was to have a relative error, and has another."""
    asked = run.at_error
    return asked is not None and abs(run.relative_error / asked - 1) > TOLERANCE


def explained(runs: Sequence[StudyRun]) -> list[Explained]:
    """For each K, what the damage of one edited layer goes with."""
    known = [
        run
        for run in single_layers(runs, at_error=None)
        if run.correction == "moments" and run.spearman is not None
    ]
    return [_explained(k, own) for k, own in by_size(known).items()]


def _explained(k: int, runs: Sequence[StudyRun]) -> Explained:
    layers = sorted({run.layer for run in runs})
    within = [_correlations([run for run in runs if run.layer == layer]) for layer in layers]
    medians = [_median([pair[i] for pair in within]) for i in (0, 1)]
    return Explained(k, len(runs), *_correlations(runs), within_layers=(medians[0], medians[1]))


def _correlations(runs: Sequence[StudyRun]) -> tuple[float | None, float | None]:
    damages = [run.damage for run in runs]
    errors = [run.relative_error for run in runs]
    orders = [run.spearman or 0.0 for run in runs]
    return rank_correlation(errors, damages), rank_correlation(orders, damages)


def _cell(runs: Sequence[StudyRun]) -> Cell:
    orders = [run.spearman for run in runs if run.spearman is not None]
    rho = statistics.median(orders) if orders else None
    return Cell(middle(run.damage for run in runs), rho, len(runs))


def _median(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else None
