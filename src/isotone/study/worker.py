"""What a process of a study holds: one model at a time, and how to measure a run on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch

from isotone.evaluate.windows import Tokens
from isotone.study.record import Provenance, Record, Run
from isotone.study.subject import Subject

Task: TypeAlias = tuple[int, Run | None]
"""The k of a clustering, and what to do to it; None for nothing."""


@dataclass
class _Worker:
    """The last model stays loaded: tasks come in the order of their clusterings."""

    clusterings: Mapping[int, Path]
    windows: Tokens
    provenance: Provenance
    subject: Subject | None = None

    def measure(self, task: Task) -> Record:
        k, run = task
        if self.subject is None or self.subject.k != k:
            self.subject = None  # goes before the next one comes
            self.subject = Subject(self.clusterings[k], k, self.windows, self.provenance)
        return self.subject.unedited() if run is None else self.subject.measure(run)


_worker: list[_Worker] = []  # of this process: one at most


def prepare(clusterings: Mapping[int, Path], windows: Tokens, provenance: Provenance) -> None:
    """Make this process a worker."""
    torch.set_num_threads(provenance.n_threads)
    _worker[:] = [_Worker(clusterings, windows, provenance)]


def measure(task: Task) -> Record:
    """Do one task; the process must have been prepared."""
    return _worker[0].measure(task)


def finish() -> None:
    """Let go of what this process holds."""
    _worker.clear()
