"""Multiple-choice questions from a local file, one JSON object on each line, as an lm-eval task.

A local file becomes an ordinary task of lm-eval, so its scoring is lm-eval's: `acc` takes the
choice of highest log-likelihood after the query and one space, `acc_norm` divides that by the
number of the choice's characters, `acc_bytes` by the number of its bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypedDict, TypeGuard

from isotone.errors import InputError
from isotone.models.text import decoded

SUFFIX = ".jsonl"


class Question(TypedDict):
    """One question: `query` comes before the answer, `gold` is the index of the right choice."""

    query: str
    choices: list[str]
    gold: int


def read_questions(path: Path) -> list[Question]:
    """Read the questions of a file; blank lines are passed over.

    Parameters
    ----------
    path : Path
        A UTF-8 file with a JSON object `{"query": ..., "choices": [...], "gold": ...}` on each
        line.

    Returns
    -------
    list of Question
        The questions, in the order of the file.

    Raises
    ------
    InputError
        If the file cannot be read or holds no question, or if a line, which is then named, is not a
        question with at least two choices, none of them empty.
    """
    try:
        lines = decoded(path.read_bytes()).split("\n")  # splitlines would cut at U+2028 too
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise InputError(f"{path}: cannot be read as questions: {reason}") from error
    questions = [
        _question(line, f"{path}: line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not questions:
        raise InputError(f"{path}: holds no question; expected one JSON object on each line")
    return questions


def task_definition(path: Path, questions: list[Question]) -> dict[str, Any]:
    """Return a file of questions as a task of lm-eval.

    Parameters
    ----------
    path : Path
        The file; the task has its name without the suffix.
    questions : list of Question
        The questions of the file.

    Returns
    -------
    dict
        The task's configuration, as lm-eval takes it in the place of a name.
    """

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


def _question(line: str, where: str) -> Question:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f'{where} is not a JSON object with "query", "choices" and "gold"')
    query, choices, gold = (content.get(key) for key in ("query", "choices", "gold"))
    if not isinstance(query, str) or not query:
        raise InputError(f'{where}: "query" is {query!r}; expected a text that is not empty')
    if not _are_choices(choices):
        raise InputError(
            f'{where}: "choices" is {choices!r}; expected two texts or more, none of them empty'
        )
    if type(gold) is not int or not 0 <= gold < len(choices):
        raise InputError(
            f'{where}: "gold" is {gold!r}; expected an index from 0 to {len(choices) - 1}'
        )
    return {"query": query, "choices": choices, "gold": gold}


def _are_choices(choices: object) -> TypeGuard[list[str]]:
    return (
        isinstance(choices, list)
        and len(choices) >= 2
        and all(isinstance(choice, str) and choice for choice in choices)
    )
