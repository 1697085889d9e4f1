"""Output of the commands: progress on stderr; one JSON object, or lines and tables, on stdout."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _Console(Console):
    """Reports a reader that went away as any other write does, instead of exiting with code 1."""

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError; `main` knows the exit code."""
        raise BrokenPipeError


# Markup is off because names of tensors and files may hold brackets.
stdout = _Console(markup=False)
stderr = _Console(stderr=True, markup=False)

# A sweep has dozens of stages, and a screen shows only the upper bars: older ones are removed.
_MAX_BARS = 8


class RateColumn(ProgressColumn):
    """Shows the rate: bytes with their prefixes, or a count of other units, per second."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        if rate is None:
            return Text("")
        unit = task.fields["unit"]
        shown = size(rate) if unit == "bytes" else f"{rate:,.3g} {unit}"
        return Text(f"{shown}/s", style="progress.data.speed")


class ProgressBar:
    """Shows how much of a stage is done, its rate, and the time left."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._what = ""
        self._task: TaskID | None = None
        self._endless: TaskID | None = None

    def begin(self, what: str, total: int, unit: str = "bytes") -> None:
        """Start a stage of `total` units; 0 where its size is not known."""
        if self._endless is not None:
            self._bars.remove_task(self._endless)  # otherwise its bar would go on pulsing
        for task_id in self._bars.task_ids[:-_MAX_BARS]:
            self._bars.remove_task(task_id)
        self._what = what
        self._task = self._bars.add_task(what, total=total or None, unit=unit)
        self._endless = None if total else self._task

    def advance(self, n: int) -> None:
        """Count `n` more units as done."""
        if self._task is not None:
            self._bars.advance(self._task, n)

    def note(self, text: str) -> None:
        """Show a note beside the name of the stage."""
        if self._task is not None:
            self._bars.update(self._task, description=f"{self._what}, {text}")


@contextmanager
def progress_bar() -> Iterator[ProgressBar]:
    """Show a bar on stderr while the block runs; nothing where stderr is not a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bars:
        yield ProgressBar(bars)


def escape_what_cannot_be_shown() -> None:
    """Let stdout and stderr write characters that their encoding lacks as escapes.

    What a model writes may hold any character, and so may names of files; the encoding is that of
    the terminal or of PYTHONIOENCODING.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def hide_foreign_bars() -> None:
    """Hide the progress bars of other libraries, which would mix with ours.

    It has to be called before tqdm is imported.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")


def print_json(result: object) -> None:
    """Print a dataclass or a dict as one JSON object on one line."""
    content: Any = (
        asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
    )
    sys.stdout.write(json.dumps(content, allow_nan=False) + "\n")


def say(line: str | Text, style: str = "") -> None:
    """Print one line on stdout; it is neither coloured nor broken, so that paths stay whole."""
    stdout.print(line, highlight=False, soft_wrap=True, style=style)


def warn(line: str) -> None:
    """Print one line on stderr, as `say` does."""
    stderr.print(line, highlight=False, soft_wrap=True)


def size(n_bytes: float) -> str:
    """Return a number of bytes as people read it: decimal units, three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}" if n_bytes < 999.5 else f"{n_bytes:.0f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"
