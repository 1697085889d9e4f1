"""Multiple-choice questions from a local file, one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict, TypeGuard

from isotone.errors import InputError

SUFFIX = ".jsonl"


class Question(TypedDict):
    """query: what comes before the answer. choices: the answers. gold: the right one's index."""

    query: str
    choices: list[str]
    gold: int


def read_questions(path: Path) -> list[Question]:
    """The questions of a file; blank lines are passed over.

    Raises InputError, naming the line, where one is not a question with two choices or more, none
    of them empty.
    """
    try:
        lines = path.read_text("utf-8").split("\n")  # splitlines would cut at U+2028 too
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise InputError(f"{path}: cannot be read as questions: {reason}") from error
    questions = [
        _question(line, f"{path}: line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not questions:
        raise InputError(f"{path}: holds no question; expected one JSON object a line")
    return questions


def _question(line: str, where: str) -> Question:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f'{where} is not a JSON object with "query", "choices" and "gold"')
    query, choices, gold = (content.get(key) for key in ("query", "choices", "gold"))
    if not isinstance(query, str) or not query:
        raise InputError(f'{where}: "query" is {query!r}; expected a text')
    if not _are_choices(choices):
        raise InputError(f'{where}: "choices" is {choices!r}; expected two texts or more')
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
