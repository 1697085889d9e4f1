"""Runs a plan: every run is measured once and kept as a line, and a killed study continues."""

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
from isotone.models.prefix import AUTO
from isotone.study.inputs import StudyInputs, drop_clusterings, places_in
from isotone.study.plan import Plan
from isotone.study.protocols import RunSequence, expand
from isotone.study.record import Provenance, StudyRecord, StudyRun, parse_record
from isotone.study.worker import Measurer, Task

RUNS_FILE = "runs.jsonl"


@dataclass(frozen=True)
class StudySummary:
    """What has been measured of a plan.

    Attributes
    ----------
    n_done : int
        The runs of the plan that are measured.
    n_total : int
        All runs of the plan.
    n_skipped : int
        The runs that are left out, since their sequence passed `until`.
    n_measured : int
        The records that this call added, those of unedited models included.
    seconds : float
        The duration of this call.
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
    bos: str = AUTO,
    dtype: str = "float32",
    device: str = "cpu",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> StudySummary:
    """Measure every run of a plan that the results do not hold yet.

    Parameters
    ----------
    plan : Plan
        The plan, see `read_plan`.
    results : str or Path
        The directory of the results, new or of the same study. It holds runs.jsonl, and the
        clusterings of a dense model.
    model : str or Path
        A dense model directory or a hub id, which is clustered as the plan says; or a clustered
        directory, which is taken as it is, whatever K the plan names.
    text : str or Path
        A UTF-8 file to score, or "builtin" for the text that Python ships.
    workers : int
        The number of processes. Each loads the model, and they share the cores.
    engine : Engine, optional
        Where to run instead of in processes of this machine; all its workers must see the model and
        the results.
    bos : str
        What every window begins with: `auto`, `yes` or `no`, as `isotone.evaluate` takes it.
    dtype, device : str
        What the model runs in and on, as `isotone.evaluate` takes them.
    overwrite : bool
        Whether to drop first what the directory holds.
    progress : Progress, optional
        Told about every step and run.

    Returns
    -------
    StudySummary
        What has been measured.

    Raises
    ------
    InputError
        If the plan, the model or the text cannot work, or if the directory holds another study;
        whatever can be known early is refused before anything is measured.
    FormatError
        If a clustered directory is damaged.
    MissingExtraError
        If the plan has tasks, and lm-eval is not installed.

    Notes
    -----
    Each run costs a forward pass over the windows from its first edited layer on.
    """
    started = time.monotonic()
    progress, results = progress or Silent(), Path(results).absolute()
    engine = engine or LocalEngine(workers)
    inputs = StudyInputs.open(plan, model, text, engine, dtype, device, progress, bos)
    inputs.refuse_inside(results)
    with Journal.open(results, RUNS_FILE, parse_record, "isotone study") as journal:
        _take_up(journal, inputs.provenance, overwrite=overwrite)
        clusterings = inputs.clusterings(results, engine, progress)
        manifest = next(iter(clusterings.values())).manifest  # names and shapes are those of each
        sequences = expand(inputs.plan, list(clusterings), places_in(manifest))
        arguments = (clusterings, inputs.windows, inputs.provenance)
        todo = _unmeasured(sequences, list(clusterings), journal.records)
        n_before = len(journal.records)
        if todo:
            with engine.start(Measurer, arguments, progress, inputs.needs(manifest)) as team:
                _measure(team, todo, journal, progress)
        done = _by_run(journal.records)
        n_done = sum(_key(run) in done for sequence in sequences for run in sequence)
        n_total = sum(map(len, sequences))
        n_measured = len(journal.records) - n_before
    seconds = time.monotonic() - started
    return StudySummary(n_done, n_total, n_total - n_done, n_measured, seconds)


def _take_up(journal: Journal[StudyRecord], provenance: Provenance, *, overwrite: bool) -> None:
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
    team: Team[Task, StudyRecord],
    todo: Sequence[Sequence[Task]],
    journal: Journal[StudyRecord],
    progress: Progress,
) -> None:
    progress.begin("measuring", sum(map(len, todo)), unit="runs")
    left = {_key(task[1]): len(s) - at for s in todo for at, task in enumerate(s, 1) if task[1]}

    def goes_on(task: Task, record: StudyRecord) -> bool:
        if task[1] is None or not _passed(task[1], record):
            return True
        progress.advance(left[_key(task[1])])
        return False

    for _, record in team.results(todo, goes_on):
        journal.append(record)
        progress.advance(1)
        progress.note(_shown(record))


def _unmeasured(
    sequences: Sequence[RunSequence], k: Sequence[int], records: Sequence[StudyRecord]
) -> list[list[Task]]:
    """Return the runs that are not measured yet, by sequence; the unedited models come first."""
    done = _by_run(records)
    unedited = {record.k for record in records if record.run is None}
    rests = [_rest(sequence, done) for sequence in sequences]
    todo: list[list[Task]] = []
    for number in k:
        todo += [[(number, None)]] if number not in unedited else []
        todo += [[(number, run) for run in rest] for rest in rests if rest and rest[0].k == number]
    return todo


def _rest(sequence: RunSequence, done: Mapping[str, StudyRecord]) -> list[StudyRun]:
    rest = []
    for run in sequence:
        record = done.get(_key(run))
        if record is None:
            rest.append(run)
        elif _passed(run, record):
            break
    return rest


def _passed(run: StudyRun, record: StudyRecord) -> bool:
    """Return whether the rest of a sequence is left out after a record."""
    if run.until is None:
        return False
    return record.perplexity is None or record.perplexity > run.until * record.unedited_perplexity


def _by_run(records: Sequence[StudyRecord]) -> dict[str, StudyRecord]:
    return {_key(record.run): record for record in records if record.run is not None}


def _key(run: StudyRun) -> str:
    """Return a text that tells runs apart: they hold dicts, so they are not hashable."""
    return repr(run)


def _shown(record: StudyRecord) -> str:
    run = record.run
    if run is None:
        return f"unedited perplexity {record.unedited_perplexity:.2f}"
    result = "none" if record.perplexity is None else f"{record.perplexity:.4g}"
    return f"{run.grid}: {run.edit}, {len(run.layers)} layers: perplexity {result}"
