"""A directory of results, one JSON object on each line, that a killed run continues.

A line is appended, whole and synced, as soon as its record is measured. A last line that a kill or
a crash tore is dropped when the run continues, so nothing is ever measured twice or half.
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
    """The lines of one file as records, held by one run at a time.

    Parameters
    ----------
    directory : Path
        The directory of the file.
    file : binary file
        The file, open for appending and locked.
    records : list
        The records that the file holds.
    """

    def __init__(self, directory: Path, file: BinaryIO, records: list[Record]) -> None:
        self.directory, self._file, self.records = directory, file, records

    @classmethod
    @contextmanager
    def open(
        cls, directory: Path, name: str, parse: Callable[[dict[str, Any]], Record], command: str
    ) -> Iterator[Journal[Record]]:
        """Begin a journal, or continue one.

        Parameters
        ----------
        directory : Path
            The directory of results; it is created where it does not exist.
        name : str
            The name of the file in it.
        parse : callable
            Makes a record of a line's object; an exception means that the object is no record.
        command : str
            The command whose journal it is, for messages.

        Yields
        ------
        Journal
            The journal, locked until the context ends.

        Raises
        ------
        InputError
            If the directory holds anything else, if a line is no record, or if another run is at
            work there.
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
        """Write a record; it is on disk when this returns.

        Parameters
        ----------
        record : dataclass instance
            The record; its first field is `kind`.
        """
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
    """Return the records of a file and the bytes that they take, without a torn last line."""
    records: list[Record] = []
    n_bytes = 0
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        if _is_torn(line):
            break
        try:
            records.append(parse(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{path}: line {number} is not a record that {command} wrote; choose another "
                "RESULTS, or remove that line"
            ) from error
        n_bytes += len(line)
    return records, n_bytes


def _is_torn(line: bytes) -> bool:
    """Return whether a line is the start of a record, or zeros as a machine's crash may leave them.

    What somebody else wrote is never taken for a torn line.
    """
    start = line.rstrip(b"\0")[: len(_LINE_START)]
    return not line.endswith(b"\n") and _LINE_START.startswith(start)
