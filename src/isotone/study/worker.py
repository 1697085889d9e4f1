"""What a worker of a study holds: one model at a time, and how to measure a run on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import torch

from isotone.engine.progress import Progress
from isotone.models.text import Tokens
from isotone.study.record import Provenance, Record, Run
from isotone.study.subject import Subject

Task: TypeAlias = tuple[int, Run | None]
"""The k of a clustering, and what to do to it; None for nothing."""


class Measurer:
    """The last model stays loaded: tasks come in the order of their clusterings."""

    def __init__(
        self, clusterings: Mapping[int, Path], windows: Tokens, provenance: Provenance
    ) -> None:
        torch.set_num_threads(provenance.n_threads)
        self._clusterings, self._windows, self._provenance = clusterings, windows, provenance
        self._subject: Subject | None = None

    def __call__(self, task: Task, _progress: Progress) -> Record:
        k, run = task
        if self._subject is None or self._subject.k != k:
            self._subject = None  # goes before the next one comes
            self._subject = Subject(self._clusterings[k], k, self._windows, self._provenance)
        return self._subject.unedited() if run is None else self._subject.measure(run)
