"""What people see: progress on stderr, one JSON object or tables on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

stdout = Console()
stderr = Console(stderr=True)


class ProgressBar:
    """Shows dense bytes done, their rate, and the time left."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def begin(self, what: str, total_bytes: int) -> None:
        """Start a stage."""
        self._task = self._bars.add_task(what, total=total_bytes)

    def advance(self, n_bytes: int) -> None:
        """So much more is done."""
        if self._task is not None:
            self._bars.advance(self._task, n_bytes)


@contextmanager
def progress_bar() -> Iterator[ProgressBar]:
    """A bar on stderr, gone when done; nothing where stderr is not a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bars:
        yield ProgressBar(bars)


def print_json(result: object) -> None:
    """Exactly one JSON object, on one line."""
    content: Any = (
        asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
    )
    sys.stdout.write(json.dumps(content, allow_nan=False) + "\n")


def size(n_bytes: float) -> str:
    """Bytes as people read them: decimal units, three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}" if n_bytes < 999.5 else f"{n_bytes:.0f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"
