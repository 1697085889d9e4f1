"""What a worker of a study holds: one model at a time, and how to measure a run on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch

from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.engine.progress import Progress
from isotone.models.text import Tokens
from isotone.study.record import Provenance, StudyRecord, StudyRun
from isotone.study.studied_model import StudiedModel

Task: TypeAlias = tuple[int, StudyRun | None]
"""The K of a clustering, and the run to measure on it; None for the unedited model."""


class Measurer:
    """Measures runs, one after the other; the last model stays loaded.

    Tasks come in the order of their clusterings, so each model is loaded once.

    Parameters
    ----------
    clusterings : dict of int to CompressedDirectory
        The clustered directories by K.
    windows : int64 array, `[n, context]`
        The token ids to score.
    provenance : Provenance
        What all records of the study share.
    """

    def __init__(
        self,
        clusterings: Mapping[int, CompressedDirectory],
        windows: Tokens,
        provenance: Provenance,
    ) -> None:
        torch.set_num_threads(provenance.n_threads)
        self._clusterings, self._windows, self._provenance = clusterings, windows, provenance
        self._model: StudiedModel | None = None

    def __call__(self, task: Task, _progress: Progress) -> StudyRecord:
        k, run = task
        if self._model is None or self._model.k != k:
            self._model = None  # goes before the next one comes
            self._model = StudiedModel(self._clusterings[k], k, self._windows, self._provenance)
        return self._model.unedited() if run is None else self._model.measure(run)
