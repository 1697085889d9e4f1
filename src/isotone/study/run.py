"""Run a plan: every run is measured once, kept as a line, and gone on with after a kill."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isotone.engine.local import LocalEngine
from isotone.engine.progress import Progress, Silent
from isotone.engine.tasks import Engine, Team
from isotone.errors import InputError
from isotone.evaluation.journal import Journal
from isotone.evaluation.provenance import difference
from isotone.study.plan import Plan
from isotone.study.protocols import RunSequence, expand
from isotone.study.record import Provenance, Record, Run, parse_record
from isotone.study.sources import Sources, drop_clusterings, places_in
from isotone.study.worker import Measurer, Task

RUNS_FILE = "runs.jsonl"


@dataclass(frozen=True)
class StudySummary:
    """What a study has come to.

    n_total: runs of the plan. n_done: of these, measured. n_skipped: of these, left out, since
    their sequence had passed `until`. n_measured: by this call. seconds: of this call.
    """

    n_done: int
    n_total: int
    n_skipped: int
    n_measured: int
    seconds: float


def run_study(
    plan: Plan,
    results: str | Path,
    *,
    model: str | Path,
    text: str | Path,
    workers: int = 1,
    engine: Engine | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> StudySummary:
    """Measure every run of a plan that `results` does not hold yet.

    model: a dense model directory or hub id, which is clustered as the plan says, below `results`;
    or a clustered directory, which is taken as it is, whatever k the plan names. text, dtype,
    device: as evaluate takes them. workers: processes, each of which loads the model; they share
    the cores. engine: where to work, instead of in those; then all its workers must see `model` and
    `results`. overwrite: drop first what `results` holds.
    Raises InputError, FormatError and MissingExtraError, what can be known early before anything
    is measured. Cost: for each run, a forward pass from the first edited layer on.
    """
    started = time.monotonic()
    progress, results = progress or Silent(), Path(results).absolute()
    engine = engine or LocalEngine(workers)
    sources = Sources.open(plan, model, text, engine, dtype, device, progress)
    sources.refuse_inside(results)
    with Journal.open(results, RUNS_FILE, parse_record, "isotone study") as journal:
        _take_up(journal, sources.provenance, overwrite=overwrite)
        clusterings = sources.clusterings(results, engine, progress)
        manifest = sources.manifest(clusterings)
        sequences = expand(sources.plan, list(clusterings), places_in(manifest))
        arguments = (clusterings, sources.windows, sources.provenance)
        todo = _unmeasured(sequences, list(clusterings), journal.records)
        n_before = len(journal.records)
        if todo:
            with engine.start(Measurer, arguments, progress, sources.needs(manifest)) as team:
                _measure(team, todo, journal, progress)
        done = _by_run(journal.records)
        n_done = sum(_key(run) in done for sequence in sequences for run in sequence)
        n_total = sum(map(len, sequences))
        n_measured = len(journal.records) - n_before
    seconds = time.monotonic() - started
    return StudySummary(n_done, n_total, n_total - n_done, n_measured, seconds)


def _take_up(journal: Journal[Record], provenance: Provenance, *, overwrite: bool) -> None:
    """Refuse, or drop, what was measured on something else."""
    others = [record for record in journal.records if record.provenance != provenance]
    if others and not overwrite:
        raise InputError(
            f"{journal.directory}: holds runs of another study "
            f"({difference(others[0].provenance, provenance)}); choose another RESULTS, or give "
            "--overwrite to drop them"
        )
    if overwrite:
        journal.clear()
        drop_clusterings(journal.directory)


def _measure(
    team: Team[Task, Record],
    todo: Sequence[Sequence[Task]],
    journal: Journal[Record],
    progress: Progress,
) -> None:
    progress.begin("measuring", sum(map(len, todo)), unit="runs")
    left = {_key(task[1]): len(s) - at for s in todo for at, task in enumerate(s, 1) if task[1]}

    def goes_on(task: Task, record: Record) -> bool:
        if task[1] is None or not _passed(task[1], record):
            return True
        progress.advance(left[_key(task[1])])
        return False

    for _, record in team.results(todo, goes_on):
        journal.append(record)
        progress.advance(1)
        progress.note(_shown(record))


def _unmeasured(
    sequences: Sequence[RunSequence], k: Sequence[int], records: Sequence[Record]
) -> list[list[Task]]:
    """What is left of each sequence, after the unedited model of each k."""
    done = _by_run(records)
    unedited = {record.k for record in records if record.run is None}
    rests = [_rest(sequence, done) for sequence in sequences]
    todo: list[list[Task]] = []
    for number in k:
        todo += [[(number, None)]] if number not in unedited else []
        todo += [[(number, run) for run in rest] for rest in rests if rest and rest[0].k == number]
    return todo


def _rest(sequence: RunSequence, done: Mapping[str, Record]) -> list[Run]:
    rest = []
    for run in sequence:
        record = done.get(_key(run))
        if record is None:
            rest.append(run)
        elif _passed(run, record):
            break
    return rest


def _passed(run: Run, record: Record) -> bool:
    """Whether the rest of a sequence is left out."""
    if run.until is None:
        return False
    return record.perplexity is None or record.perplexity > run.until * record.unedited_perplexity


def _by_run(records: Sequence[Record]) -> dict[str, Record]:
    return {_key(record.run): record for record in records if record.run is not None}


def _key(run: Run) -> str:
    """Runs are not hashable, and their texts tell them apart."""
    return repr(run)


def _shown(record: Record) -> str:
    run = record.run
    if run is None:
        return f"unedited perplexity {record.unedited_perplexity:.2f}"
    result = "none" if record.perplexity is None else f"{record.perplexity:.4g}"
    return f"{run.grid}: {run.edit}, {len(run.layers)} layers: perplexity {result}"
