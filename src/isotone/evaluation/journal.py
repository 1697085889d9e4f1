"""A directory of results, one JSON object a line, that a killed run goes on with.

A line is appended when what it tells is measured. A last line that a kill or a crash tore is
dropped when the run goes on, so that nothing is ever measured twice or half.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from isotone.checkpoint.files.lock import take_lock
from isotone.checkpoint.staging.staging import writing
from isotone.errors import InputError

Record = TypeVar("Record")

_LINE_START = b'{"kind": '


class Journal(Generic[Record]):
    """The lines of one file as records, held by one run at a time."""

    def __init__(self, directory: Path, file: BinaryIO, records: list[Record]) -> None:
        self.directory, self._file, self.records = directory, file, records

    @classmethod
    @contextmanager
    def open(
        cls, directory: Path, name: str, parse: Callable[[dict[str, Any]], Record], command: str
    ) -> Iterator[Journal[Record]]:
        """Begin a journal, or go on with one.

        parse: makes a record of a line's object; what it raises means that it is none. command:
        whose journal it is, for messages. Raises InputError where the directory holds anything
        else, where a line is no record, and where another run is at work there.
        """
        with writing(directory):
            _refuse_foreign(directory, name, command)
            directory.mkdir(parents=True, exist_ok=True)
            file = (directory / name).open("a+b")
        with file:
            take_lock(file, directory)
            with writing(directory):
                file.seek(0)
                records, n_bytes = _whole_lines(file.read(), directory / name, parse, command)
                file.truncate(n_bytes)
            yield cls(directory, file, records)

    def append(self, record: Record) -> None:
        """Keep a record (a dataclass whose first field is kind), for good once this returns."""
        content: Any = record
        line = json.dumps(asdict(content), allow_nan=False).encode() + b"\n"
        with writing(self.directory):
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        self.records.append(record)

    def clear(self) -> None:
        """Drop all records."""
        with writing(self.directory):
            self._file.truncate(0)
        self.records.clear()


def _refuse_foreign(directory: Path, name: str, command: str) -> None:
    if not directory.exists() or (directory / name).is_file():
        return
    if not directory.is_dir() or any(directory.iterdir()):
        raise InputError(
            f"{directory}: exists, and holds no {name} of {command}; choose another RESULTS"
        )


def _whole_lines(
    content: bytes, path: Path, parse: Callable[[dict[str, Any]], Record], command: str
) -> tuple[list[Record], int]:
    """The records of a file and the bytes that they take; a torn last line is not among them."""
    records: list[Record] = []
    n_bytes = 0
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        if _is_torn(line):
            break
        try:
            records.append(parse(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{path}: line {number} is nothing that {command} wrote; choose another RESULTS, "
                "or take that line out"
            ) from error
        n_bytes += len(line)
    return records, n_bytes


def _is_torn(line: bytes) -> bool:
    """The start of a record, or zeros as a crash of the machine may leave them; never foreign."""
    start = line.rstrip(b"\0")[: len(_LINE_START)]
    return not line.endswith(b"\n") and _LINE_START.startswith(start)


def difference(old: Any, new: Any) -> str:  # noqa: ANN401 (dataclasses of one kind)
    """How two descriptions of what is measured differ, for messages."""
    was, now = asdict(old), asdict(new)
    changed = [key for key in was if was[key] != now[key]]
    return "; ".join(f"{key} was {_shown(was[key])}, is {_shown(now[key])}" for key in changed)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(value) or "none"
    return value[:12] + "…" if isinstance(value, str) and len(value) == 64 else str(value)
