"""Tasks through lm-eval: its own by name, and local files of multiple-choice questions.

A local file becomes an ordinary lm-eval task, so its scoring is lm-eval's: `acc` takes the choice
of highest log-likelihood after the query and one space, `acc_norm` divides that by the choice's
characters, `acc_bytes` by its bytes.
"""

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
from isotone.evaluation.questions import SUFFIX, Question, read_questions
from isotone.models.language_model.files import ModelFiles

Scores = dict[str, dict[str, float | int | None]]


@dataclass(frozen=True)
class PreparedTasks:
    """Tasks that are known to exist: lm-eval's names and definitions, and its index of them."""

    specs: list[str | dict[str, Any]]
    manager: Any


def prepare_tasks(tasks: Sequence[str | Path]) -> PreparedTasks:
    """Look up tasks, each a name that lm-eval knows or a .jsonl file of questions.

    Raises InputError for an unknown name or a broken file, MissingExtraError without lm-eval.
    Cost: lm-eval takes some seconds to index its names; files alone need no index.
    """
    if find_spec("lm_eval") is None:
        raise MissingExtraError("--tasks", "eval")
    names = [str(task) for task in tasks]
    files = {name: Path(name) for name in names if Path(name).suffix == SUFFIX}
    questions = {name: read_questions(path) for name, path in files.items()}
    from lm_eval.tasks import TaskManager

    with _quiet():
        manager = TaskManager(include_defaults=not files.keys() >= set(names))
    known = set(manager.all_tasks)
    for name in names:
        if name not in files and name not in known:
            close = difflib.get_close_matches(name, known, 3)
            hint = f"close to it: {', '.join(close)}" if close else "lm-eval ls tasks shows them"
            raise InputError(f"{name}: no task of lm-eval, and no {SUFFIX} file; {hint}")
    shown = [files[name].stem if name in files else name for name in names]
    for name in shown:
        if shown.count(name) > 1:
            raise InputError(f"{name}: is named by two tasks; rename the file or leave one out")
    specs = [_definition(files[name], questions[name]) if name in files else name for name in names]
    return PreparedTasks(specs, manager)


def run_tasks(
    prepared: PreparedTasks,
    files: ModelFiles,
    model: PreTrainedModel,
    progress: Progress | None = None,
) -> Scores:
    """Each task's metrics with standard errors (`acc`, `acc_stderr`), and `n`, its questions.

    A metric after a filter of lm-eval's is named `metric,filter`. Standard errors that lm-eval
    does not know are None. lm-eval seeds Python's, NumPy's and torch's global generators.
    Raises InputError where a task's data cannot be had, offline for example.
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


def _definition(path: Path, questions: list[Question]) -> dict[str, Any]:
    """A file as a task of lm-eval, named for the file."""

    def dataset(**_: object) -> dict[str, Any]:
        import datasets

        return {"test": datasets.Dataset.from_list(questions)}

    metrics = ("acc", "acc_norm", "acc_bytes")
    return {
        "task": path.stem,
        "custom_dataset": dataset,
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "query",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "num_fewshot": 0,
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in metrics
        ],
    }


def _metrics(row: dict[str, Any]) -> dict[str, float | int | None]:
    metrics: dict[str, float | int | None] = {}
    for key, value in row.items():
        name, comma, filter_name = key.partition(",")
        if comma:
            shown = name if filter_name == "none" else key
            metrics[shown] = float(value) if isinstance(value, int | float) else None
    return metrics


@contextmanager
def _quiet() -> Iterator[None]:
    """lm-eval by itself: no remarks on loaded models and inline tasks, no report on the machine.

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
