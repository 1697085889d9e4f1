"""A directory of results, read: the runs of a study, or the points of a frontier."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isotone.errors import InputError
from isotone.reporting.study.runs import study_run

RUNS_FILE, POINTS_FILE = "runs.jsonl", "points.jsonl"

Record = dict[str, Any]


def read_results(directory: str | Path) -> tuple[str, list[Record]]:
    """The name of the file that was found, and its records; a torn last line is dropped.

    Raises InputError where there is neither file, nothing in it, or a line that is no record.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(f"{directory}: is no directory; expected the RESULTS of a study or sweep")
    for name, check, command in (
        (RUNS_FILE, _check_run, "isotone study run"),
        (POINTS_FILE, _check_point, "isotone frontier"),
    ):
        if (directory / name).is_file():
            return name, _records(directory / name, check, command)
    raise InputError(
        f"{directory}: holds neither {RUNS_FILE} of isotone study run nor {POINTS_FILE} of isotone "
        "frontier"
    )


def _records(path: Path, check: Callable[[Record], bool], command: str) -> list[Record]:
    """The checked records of a file, of which at least one is more than a beginning."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    records, n_results = [], 0
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            record = json.loads(line, parse_constant=lambda _: None)
            n_results += check(record)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            what = "run" if path.name == RUNS_FILE else "point"
            raise InputError(
                f"{path}: line {number} is no {what} of {command}; take that line out"
            ) from error
        records.append(record)
    if not n_results:
        raise InputError(f"{path}: holds no result yet; let {command} go on first")
    return records


def _check_run(record: Record) -> bool:
    """Whether it is an edited run; raises where it is none at all."""
    if record["kind"] == "edited":
        study_run(record, 1.0)
    elif record["kind"] != "unedited" or not isinstance(record["perplexity"], int | float | None):
        raise ValueError(f"kind is {record['kind']!r}")
    for key in ("k", "clustering_hash", "n_tokens", "seconds"):
        record[key]
    dict(record["provenance"])
    return bool(record["kind"] == "edited")


def _check_point(record: Record) -> bool:
    """Whether it is more than the dense model."""
    texts = [record[key] for key in ("kind", "family", "label")]
    numbers = [record["bits_per_weight"]]
    numbers += [value for value in (record["perplexity"], record["kl"]) if value is not None]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a name is no text")
    if not all(isinstance(number, int | float) for number in numbers):
        raise TypeError("a figure is no number")
    return True
