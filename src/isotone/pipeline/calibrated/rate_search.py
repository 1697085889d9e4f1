"""Calibrating as part of compressing: statistics found or made, and the price that they lead to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isotone.calibration.statistics import INDEX_FILE, SELF, Statistics
from isotone.checkpoint.compressed.file_record import hash_file
from isotone.checkpoint.files.location import is_remote
from isotone.checkpoint.source.source import Source
from isotone.checkpoint.staging.staging import Staging
from isotone.engine.progress import Progress
from isotone.engine.tasks import Engine
from isotone.errors import InputError
from isotone.models.transformers_calls import require_transformers
from isotone.pipeline.allocate.each_matrix import Group
from isotone.pipeline.allocate.importance import Importance
from isotone.pipeline.allocate.rate_search import SharedLambda, lambda_for, rate_probe
from isotone.pipeline.calibrated.judge import Calibration, bits_of_all, judge_all
from isotone.plan.tensors import Clustered
from isotone.plan.vocabulary import has_row_per_token

_DIRECTORY = ".statistics"
_FALLBACKS = "fallbacks"
_CLOSE = 0.0015  # relative to the size: near enough
_MOST_CORRECTIONS = 5


def identity_of(calibrate: str | Path) -> dict[str, str]:
    """What to calibrate by, such that a changed file is another job; raises InputError."""
    if str(calibrate) == SELF:
        return {"text": SELF}
    path = Path(calibrate)
    if not path.exists():
        raise InputError(
            f"calibrate is {str(calibrate)!r}: no such file or directory; expected '{SELF}', a "
            "text file, or what isotone calibrate wrote"
        )
    if path.is_dir() and not (path / INDEX_FILE).is_file():
        raise InputError(f"{path}: has no {INDEX_FILE}; expected what isotone calibrate wrote")
    return {"text": str(path), "hash": hash_file(path / INDEX_FILE if path.is_dir() else path)}


def open_calibration(
    source: Source,
    plans: Sequence[Clustered],
    by: str | Path,
    staging: Staging,
    progress: Progress,
) -> Calibration:
    """Open the statistics of some tensors, collected first where that has not been done.

    Raises InputError where the model cannot be run, or statistics are those of another model.
    """
    directory = Path(by)
    if not (directory / INDEX_FILE).is_file():
        if is_remote(staging.directory):
            raise InputError(
                f"{staging.out}: statistics cannot be collected in a store; collect them with "
                "isotone calibrate MODEL DIR, and give --calibrate DIR"
            )
        directory = staging.directory / _DIRECTORY
        collect_statistics(source, plans, by, directory, progress)
    statistics = Statistics.open(directory)
    if statistics.about["source"] != source.identity():
        raise InputError(f"{directory}: holds the statistics of another model; collect them anew")
    calibration = Calibration.of(source, statistics, plans)
    known = staging.note(_FALLBACKS)
    if known is not None:
        calibration.fallbacks = {(name, matrix): reason for name, matrix, reason in known}
    return calibration


def collect_statistics(
    source: Source, plans: Sequence[Clustered], by: str | Path, directory: Path, progress: Progress
) -> None:
    """Write a directory of statistics: see calibration.collect."""
    require_transformers("calibrating")
    from isotone.calibration.collect import collect

    wanted = [plan for plan in plans if not has_row_per_token(source, plan.tensor)]
    collect(source, wanted, str(by), directory, progress)


def calibrated_lambda(
    calibration: Calibration,
    source: Source,
    groups: Sequence[Group],
    bits: float,
    importance: Importance,
    engine: Engine,
    progress: Progress,
) -> float:
    """The price at which matrices, clustered as they will be, take so many bits a weight.

    Spread errors change how often each rank occurs, so what is surveyed without them is corrected
    by what is measured with them. On the way matrices are judged (see Calibration.fallbacks).
    """
    with rate_probe(engine, source, groups, importance, progress, calibration.count) as bits_at:
        lambda_ = lambda_for(bits, bits_at)
    n_weights = sum(plan.tensor.n_weights for group in groups for plan in group)

    def at(lambda_: float) -> list[Group]:
        lambdas = SharedLambda(lambda_, importance)
        return [tuple(lambdas.apply(plan) for plan in group) for group in groups]

    found = judge_all(calibration, at(lambda_), engine, progress) / n_weights
    measured = {lambda_: found}
    while abs(found - bits) > _CLOSE * bits and len(measured) <= _MOST_CORRECTIONS:
        lambda_ *= _correction(measured, bits)
        found = bits_of_all(calibration, at(lambda_), engine, progress) / n_weights
        measured[lambda_] = found
    return min(measured, key=lambda each: (abs(measured[each] - bits), each))


def _correction(measured: dict[float, float], bits: float) -> float:
    """By what to multiply the last price: along the line through the last two, in logarithms."""
    slope = -math.log(4.0)  # of the price's logarithm: what a bit is worth where steps are small
    (lambda_, found), *before = reversed(measured.items())
    if before and abs(before[0][1] - found) > 1e-6:
        seen = math.log(lambda_ / before[0][0]) / (found - before[0][1])
        slope = min(max(seen, 4.0 * slope), slope / 4.0)
    return math.exp(slope * (bits - found))


def note_fallbacks(calibration: Calibration, staging: Staging) -> None:
    """Note what a resumed run should not have to judge again."""
    noted = [[*key, reason] for key, reason in sorted(calibration.fallbacks.items())]
    staging.take_note(_FALLBACKS, noted)


def judged(
    calibration: Calibration,
    groups: Sequence[Group],
    staging: Staging,
    engine: Engine,
    progress: Progress,
) -> None:
    """Judge matrices that have no price, and note which fell back."""
    if staging.note(_FALLBACKS) is None:
        judge_all(calibration, groups, engine, progress)
        note_fallbacks(calibration, staging)


def record_of(calibration: Calibration, plans: Sequence[Clustered]) -> dict[str, Any]:
    """What the manifest says of it: the text, and the fallbacks by their reasons."""
    about = {key: value for key, value in calibration.about.items() if key != "source"}
    reasons: dict[str, list[str]] = {}
    stacks = {plan.tensor.name for plan in plans if plan.n_matrices > 1}
    for (name, matrix), reason in sorted(calibration.fallbacks.items()):
        shown = f"{name}[{matrix}]" if name in stacks else name
        reasons.setdefault(reason, []).append(shown)
    n_matrices = sum(plan.n_matrices for plan in plans)
    return about | {
        "n_matrices": n_matrices,
        "n_calibrated": n_matrices - len(calibration.fallbacks),
        "fallbacks": reasons,
    }
