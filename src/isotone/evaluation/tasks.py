"""Tasks through lm-eval: its own by name, and local files of multiple-choice questions."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

from transformers import PreTrainedModel

from isotone.engine.progress import Progress
from isotone.errors import InputError, MissingExtraError
from isotone.evaluation.questions import SUFFIX, read_questions, task_definition
from isotone.models.language_model.files import ModelFiles

Scores = dict[str, dict[str, float | int | None]]
"""The metrics of each task by their names."""


@dataclass(frozen=True)
class PreparedTasks:
    """Tasks that are known to exist.

    Attributes
    ----------
    specs : list of str or dict
        The tasks as lm-eval takes them: names, and the configurations of local files.
    manager : lm_eval.tasks.TaskManager
        The index in which lm-eval looks up the names.
    """

    specs: list[str | dict[str, Any]]
    manager: Any


def prepare_tasks(tasks: Sequence[str | Path]) -> PreparedTasks:
    """Look up tasks by name, and read local files of questions.

    Parameters
    ----------
    tasks : sequence of str or Path
        Names that lm-eval knows, and .jsonl files of questions.

    Returns
    -------
    PreparedTasks
        What `run_tasks` takes.

    Raises
    ------
    InputError
        If lm-eval does not know a name, if a file is broken, or if two tasks have the same name.
    MissingExtraError
        If lm-eval is not installed.

    Notes
    -----
    lm-eval takes some seconds to index its names. Local files alone need no index.
    """
    if find_spec("lm_eval") is None:
        raise MissingExtraError("--tasks", "eval")
    names = [str(task) for task in tasks]
    files = {name: Path(name) for name in names if Path(name).suffix == SUFFIX}
    questions = {name: read_questions(path) for name, path in files.items()}
    from lm_eval.tasks import TaskManager

    with _quiet():
        manager = TaskManager(include_defaults=not files.keys() >= set(names))
    _check_names([name for name in names if name not in files], set(manager.all_tasks))
    shown = [files[name].stem if name in files else name for name in names]
    for name in shown:
        if shown.count(name) > 1:
            raise InputError(f"{name}: is named by two tasks; rename the file or leave one out")
    specs = [
        task_definition(files[name], questions[name]) if name in files else name for name in names
    ]
    return PreparedTasks(specs, manager)


def run_tasks(
    prepared: PreparedTasks,
    files: ModelFiles,
    model: PreTrainedModel,
    progress: Progress | None = None,
) -> Scores:
    """Run a model through tasks.

    Parameters
    ----------
    prepared : PreparedTasks
        What `prepare_tasks` gave.
    files : ModelFiles
        The files of the model, for its tokenizer.
    model : PreTrainedModel
        The model, loaded.
    progress : Progress, optional
        Is told how many answers are scored.

    Returns
    -------
    dict of dict
        By task: each metric with its standard error (`acc`, `acc_stderr`), None where lm-eval knows
        none, and `n`, the number of questions. A metric after one of lm-eval's filters is named
        `metric,filter`.

    Raises
    ------
    InputError
        If the data of a task cannot be loaded, offline for example.

    Notes
    -----
    lm-eval seeds the global generators of Python, NumPy and torch.
    """
    from lm_eval import simple_evaluate

    from isotone.evaluation.harness import HarnessModel

    with _quiet():
        try:
            results = simple_evaluate(
                model=HarnessModel(files.tokenizer, model, progress),
                tasks=prepared.specs,
                task_manager=prepared.manager,
                log_samples=False,
            )
        except OSError as error:  # what datasets raises offline, and for data that is not there
            reason = " ".join(str(error).split())
            raise InputError(f"a task's data cannot be loaded: {reason}") from error
    counts = results["n-samples"]
    return {
        name: _metrics(row) | {"n": counts.get(name, {}).get("effective")}
        for name, row in results["results"].items()
    }


def _check_names(names: Sequence[str], known: set[str]) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, 3)
            hint = f"close to it: {', '.join(close)}" if close else "lm-eval ls tasks shows them"
            raise InputError(f"{name}: no task of lm-eval, and no {SUFFIX} file; {hint}")


def _metrics(row: dict[str, Any]) -> dict[str, float | int | None]:
    """Return the metrics of a task; lm-eval's keys are `metric,filter`."""
    metrics: dict[str, float | int | None] = {}
    for key, value in row.items():
        name, comma, filter_name = key.partition(",")
        if comma:
            shown = name if filter_name == "none" else key
            metrics[shown] = float(value) if isinstance(value, int | float) else None
    return metrics


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence lm-eval's remarks on loaded models and inline tasks, and skip its machine report.

    The report (git's state, every installed package) takes seconds and complains on stderr.
    """
    from lm_eval import evaluator

    loggers = [logging.getLogger(name) for name in ("lm_eval", "huggingface_hub", "datasets")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    nothing: dict[str, Any] = {"get_git_commit_hash": lambda: None, "add_env_info": lambda _: None}
    try:
        with patch.multiple(evaluator, create=True, **nothing):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
