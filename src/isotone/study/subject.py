"""A clustered model under study: loaded once, edited and measured many times."""

from __future__ import annotations

import math
import time
from dataclasses import fields
from pathlib import Path

import numpy as np

from isotone.engine.progress import Progress, Silent
from isotone.errors import InputError
from isotone.evaluation.comparison import TokenComparison
from isotone.evaluation.metrics import divergence, perplexity
from isotone.evaluation.tasks import prepare_tasks, run_tasks
from isotone.models.language_model.files import open_files
from isotone.models.language_model.load import load_model
from isotone.models.swap import hold_ranks, swapped
from isotone.models.text import Tokens
from isotone.study.comparison import Comparison
from isotone.study.edits import EDITS
from isotone.study.matrices import Edited, Matrix, edit_matrices
from isotone.study.passes import Passes
from isotone.study.protocols import Place
from isotone.study.record import EDITED, UNEDITED, Drift, Provenance, Record, Run


class Subject:
    """The model, its matrices, and the unedited passes that runs are compared with."""

    def __init__(
        self,
        directory: Path,
        k: int,
        windows: Tokens,
        provenance: Provenance,
        progress: Progress | None = None,
    ) -> None:
        """Load a clustered directory. k: what runs call it, see record.Run. windows: [n, context].

        Memory: the dense model, its packed ranks, and what Passes keeps.
        """
        progress = progress or Silent()
        progress.begin(f"loading {directory.name}", 0)
        self.k, self._provenance = k, provenance
        self._files = open_files(directory)
        if self._files.clustered is None:
            raise InputError(f"{directory}: is dense; expected what isotone compress wrote")
        self._hash = self._files.clustered.digest
        self._model = load_model(self._files, dtype=provenance.dtype, device=provenance.device)
        held = hold_ranks(self._model)
        places = {name: place for name in held if (place := Place.of(name)) is not None}
        self._matrices = {
            name: Matrix.of(name, place, held[name].clustered_tensor())
            for name, place in places.items()
        }
        self._passes = Passes(self._model, windows, progress)
        highest = max(matrix.place.layer for matrix in self._matrices.values())
        if highest >= self._passes.n_layers:
            raise InputError(
                f"{directory}: has matrices of layer {highest}, and the model runs through "
                f"{self._passes.n_layers} layers; their numbers do not match"
            )

    def unedited(self) -> Record:
        """The model as it is, beside itself."""
        started = time.monotonic()
        tokens, drift = self._passes.compare(self._passes.n_layers)
        return self._record(None, [], tokens, drift, {}, started)

    def measure(self, run: Run, *, reuse: bool = True) -> Record:
        """Edit, run, compare, undo. reuse: see Passes.compare.

        Raises InputError for parameters that the edit does not take.
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
        run: Run | None,
        edited: list[Edited],
        tokens: TokenComparison,
        drift: Drift,
        tasks: dict[str, dict[str, float | int | None]],
        started: float,
    ) -> Record:
        return Record(
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


def _changes(edited: list[Edited]) -> dict[str, float | None]:
    """How far the codebooks and the weights are from what they were; None for infinitely far."""
    compared = [comparison for one in edited for comparison in one.comparisons()]
    means = {
        field.name: float(np.mean([getattr(comparison, field.name) for comparison in compared]))
        for field in fields(Comparison)
        if compared
    } or {"spearman": 1.0, "kendall": 1.0, "mean_shift": 0.0, "scale": 1.0}
    products = [one.products() for one in edited] or [(1.0, 1.0, 1.0, 0.0)]
    before, after, product, error = np.sum(products, axis=0)
    cosine = product / math.sqrt(before * after) if before * after > 0 else 0.0
    apart = math.sqrt(error / before) if before > 0 else 0.0
    found = means | {"relative_error": apart, "cosine": float(cosine)}
    return {key: value if math.isfinite(value) else None for key, value in found.items()}


def _quality(tokens: TokenComparison) -> dict[str, float | None]:
    """None for what is no finite number, as from a collapsed model."""
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
