"""A clustered model under study: loaded once, edited and measured many times."""

from __future__ import annotations

import math
import time
from dataclasses import fields

import numpy as np

from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.engine.progress import Progress, Silent
from isotone.errors import InputError
from isotone.evaluation.comparison import TokenComparison
from isotone.evaluation.metrics import divergence, perplexity
from isotone.evaluation.tasks import prepare_tasks, run_tasks
from isotone.models.language_model.files import ModelFiles
from isotone.models.language_model.load import load_model
from isotone.models.swap import hold_ranks, swapped
from isotone.models.text import Tokens
from isotone.study.comparison import CodebookComparison
from isotone.study.edits import EDITS
from isotone.study.matrices import EditedMatrix, StudiedMatrix, edit_matrices
from isotone.study.passes import Passes
from isotone.study.protocols import MatrixPlace
from isotone.study.record import EDITED, UNEDITED, Drift, Provenance, StudyRecord, StudyRun


class StudiedModel:
    """A loaded model, its matrices, and the unedited passes that runs are compared with.

    Parameters
    ----------
    directory : CompressedDirectory
        The clustered directory.
    k : int
        The K by which runs call it, see `StudyRun`.
    windows : int64 array, `[n, context]`
        The token ids to score.
    provenance : Provenance
        What all records of the study share; it names the dtype and the device.
    progress : Progress, optional
        Told while the model is loaded and run.

    Notes
    -----
    In memory are the dense model, its ranks at one byte for each weight, and what `Passes` keeps.
    """

    def __init__(
        self,
        directory: CompressedDirectory,
        k: int,
        windows: Tokens,
        provenance: Provenance,
        progress: Progress | None = None,
    ) -> None:
        """Load the directory and run the unedited model."""
        progress = progress or Silent()
        progress.begin(f"loading {directory.path.name}", 0)
        self.k, self._provenance = k, provenance
        self._hash = directory.digest
        self._files = ModelFiles.of(directory)
        self._model = load_model(self._files, dtype=provenance.dtype, device=provenance.device)
        held = hold_ranks(self._model)
        places = {name: place for name in held if (place := MatrixPlace.of(name)) is not None}
        self._matrices = {
            name: StudiedMatrix.of(name, place, held[name].clustered_tensor())
            for name, place in places.items()
        }
        self._passes = Passes(self._model, windows, progress, n_prefix=len(provenance.bos))
        highest = max(matrix.place.layer for matrix in self._matrices.values())
        if highest >= self._passes.n_layers:
            raise InputError(
                f"{directory.path}: has matrices of layer {highest}, and the model runs through "
                f"{self._passes.n_layers} layers; their numbers do not match"
            )

    def unedited(self) -> StudyRecord:
        """Return the record of the unedited model, compared with itself."""
        started = time.monotonic()
        tokens, drift = self._passes.compare(self._passes.n_layers)
        return self._record(None, [], tokens, drift, {}, started)

    def measure(self, run: StudyRun, *, reuse: bool = True) -> StudyRecord:
        """Edit the model, run it, compare it with the unedited model, and undo the edit.

        Parameters
        ----------
        run : StudyRun
            What to edit, and how.
        reuse : bool
            Whether the outputs of the layers below the first edited one are reused; the result is
            the same.

        Returns
        -------
        StudyRecord
            The run and what was measured. An edit that does not take the run's parameters raises
            InputError.
        """
        started = time.monotonic()
        edited = edit_matrices(run, self._matrices)
        tasks = prepare_tasks(run.tasks) if run.tasks else None
        with swapped(self._model, {one.matrix.name: one.stored for one in edited}):
            tokens, drift = self._passes.compare(min(run.layers), reuse=reuse)
            scores = {} if tasks is None else run_tasks(tasks, self._files, self._model)
        return self._record(run, edited, tokens, drift, scores, started)

    def _record(
        self,
        run: StudyRun | None,
        edited: list[EditedMatrix],
        tokens: TokenComparison,
        drift: Drift,
        tasks: dict[str, dict[str, float | int | None]],
        started: float,
    ) -> StudyRecord:
        return StudyRecord(
            kind=UNEDITED if run is None else EDITED,
            k=self.k,
            clustering_hash=self._hash,
            run=run,
            keeps=() if run is None else tuple(sorted(EDITS[run.edit].keeps)),
            n_matrices=sum(len(one.codebook) for one in edited),
            n_weights=sum(one.matrix.n_weights for one in edited),
            **_changes(edited),
            **_quality(tokens),
            unedited_perplexity=perplexity(tokens.reference_loss).perplexity.value,
            n_tokens=len(tokens.loss),
            drift=drift,
            tasks=tasks,
            seconds=time.monotonic() - started,
            provenance=self._provenance,
        )


def _changes(edited: list[EditedMatrix]) -> dict[str, float | None]:
    """Return how far codebooks and weights are from what they were; None for infinitely far."""
    compared = [comparison for one in edited for comparison in one.comparisons()]
    means = {
        field.name: float(np.mean([getattr(comparison, field.name) for comparison in compared]))
        for field in fields(CodebookComparison)
        if compared
    } or {"spearman": 1.0, "kendall": 1.0, "mean_shift": 0.0, "scale": 1.0}
    products = [one.products() for one in edited] or [(1.0, 1.0, 1.0, 0.0)]
    before, after, product, error = np.sum(products, axis=0)
    cosine = product / math.sqrt(before * after) if before * after > 0 else 0.0
    apart = math.sqrt(error / before) if before > 0 else 0.0
    found = means | {"relative_error": apart, "cosine": float(cosine)}
    return {key: value if math.isfinite(value) else None for key, value in found.items()}


def _quality(tokens: TokenComparison) -> dict[str, float | None]:
    """Return the quality of the edited model; None for what is not finite."""
    if not (np.isfinite(tokens.loss).all() and np.isfinite(tokens.divergence).all()):
        return dict.fromkeys(("perplexity", "loss", "kl", "top1_agreement"))
    judged, apart = perplexity(tokens.loss), divergence(tokens)
    value = judged.perplexity.value
    return {
        "perplexity": value if math.isfinite(value) else None,
        "loss": judged.loss.value,
        "kl": apart.kl.value,
        "top1_agreement": apart.top1_agreement.value,
    }
