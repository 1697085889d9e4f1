"""Reads a directory of results: the runs of a study, or the points of a frontier."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isotone.errors import InputError
from isotone.reporting.study.runs import study_run

RUNS_FILE, POINTS_FILE = "runs.jsonl", "points.jsonl"


def read_results(directory: str | Path) -> tuple[str, list[dict[str, Any]]]:
    """Read the records of a study or of a frontier.

    Parameters
    ----------
    directory : str or Path
        The directory of the results.

    Returns
    -------
    name : str
        The name of the file that was found, `RUNS_FILE` or `POINTS_FILE`.
    records : list of dict
        Its records; a torn last line is dropped.

    Raises
    ------
    InputError
        If there is neither file, if there is no result in it, or if a line is no record.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(
            f"{directory}: is not a directory; expected the results of isotone study run or of "
            "isotone frontier"
        )
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


def _records(
    path: Path, check: Callable[[dict[str, Any]], bool], command: str
) -> list[dict[str, Any]]:
    """Return the checked records of a file, at least one of which is a result."""
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
                f"{path}: line {number} is not a {what} that {command} wrote; remove that line"
            ) from error
        records.append(record)
    if not n_results:
        raise InputError(f"{path}: holds no result yet; let {command} go on first")
    return records


def _check_run(record: dict[str, Any]) -> bool:
    """Return whether a record is an edited run; raise an error if it is no run at all."""
    if record["kind"] == "edited":
        study_run(record, 1.0)
    elif record["kind"] != "unedited" or not isinstance(record["perplexity"], int | float | None):
        raise ValueError(f"kind is {record['kind']!r}")
    for key in ("k", "clustering_hash", "n_tokens", "seconds"):
        record[key]
    dict(record["provenance"])
    return bool(record["kind"] == "edited")


def _check_point(record: dict[str, Any]) -> bool:
    """Return True for a point; raise an error if a record is none."""
    texts = [record[key] for key in ("kind", "family", "label")]
    numbers = [record["bits_per_weight"]]
    numbers += [value for value in (record["perplexity"], record["kl"]) if value is not None]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a name is not a string")
    if not all(isinstance(number, int | float) for number in numbers):
        raise TypeError("a figure is not a number")
    return True
