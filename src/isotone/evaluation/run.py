"""Judge a model: one call, one record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from isotone.engine.progress import Progress, Silent
from isotone.errors import InputError
from isotone.evaluation.metrics import Estimate, divergence, perplexity
from isotone.evaluation.scoring import compare, score
from isotone.evaluation.tasks import Scores, prepare_tasks, run_tasks
from isotone.models.language_model.checks import check_context, check_same_vocabulary, check_tokens
from isotone.models.language_model.files import ModelFiles, open_files
from isotone.models.language_model.load import load_model
from isotone.models.text import Tokens, cut_windows, encode, read_text


@dataclass(frozen=True)
class Evaluation:
    """What a model is worth; None where a text or a reference would have been needed.

    n_windows: scored, fewer than n_windows_asked where the text ends before. n_tokens: scored, all
    but the first of each window. loss: mean negative log likelihood in nats; perplexity: exp of
    it. kl, kl_median, kl_99, top1_agreement, flipped, lost, gained, perplexity_ratio: see
    divergence.Divergence. Each has its standard error. tasks: see tasks.run_tasks.
    seconds: everything, loading included; scoring_seconds: the pass over the windows.
    """

    model: str
    reference: str | None
    text: str | None
    context: int
    dtype: str
    n_windows_asked: int
    n_windows: int | None = None
    n_tokens: int | None = None
    loss: float | None = None
    loss_standard_error: float | None = None
    perplexity: float | None = None
    perplexity_standard_error: float | None = None
    reference_perplexity: float | None = None
    reference_perplexity_standard_error: float | None = None
    perplexity_ratio: float | None = None
    perplexity_ratio_standard_error: float | None = None
    kl: float | None = None
    kl_standard_error: float | None = None
    kl_median: float | None = None
    kl_99: float | None = None
    top1_agreement: float | None = None
    top1_agreement_standard_error: float | None = None
    flipped: float | None = None
    flipped_standard_error: float | None = None
    lost: float | None = None
    lost_standard_error: float | None = None
    gained: float | None = None
    gained_standard_error: float | None = None
    tasks: Scores = field(default_factory=dict)
    scoring_seconds: float | None = None
    seconds: float = 0.0


def evaluate(
    model: str | Path,
    text: str | Path | None = None,
    *,
    context: int = 1024,
    windows: int = 8,
    reference: str | Path | None = None,
    tasks: Sequence[str | Path] = (),
    dtype: str = "float32",
    device: str = "cpu",
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a dense or clustered model on a text, on tasks, or both.

    model, reference: directories or hub ids. text: a UTF-8 file, or `builtin` (see
    windows.read_text). context, windows: the protocol's, in tokens and windows. tasks: names that
    lm-eval knows, or .jsonl files of questions. dtype, device: see loading.load_model.
    Raises InputError, FormatError and MissingExtraError, all that can be known without the weights
    before they are read. Cost: one forward pass of each model per window, and a few percent.
    """
    started = time.monotonic()
    if text is None and not tasks:
        raise InputError("nothing to measure: give a text, tasks, or both")
    if text is None and reference is not None:
        raise InputError("a reference is compared on a text; give one, or leave the reference out")
    progress = progress or Silent()
    prepared = prepare_tasks(tasks) if tasks else None
    files = open_files(model)
    other = open_files(reference) if reference is not None else None
    tokens = _windows(files, other, text, context, windows) if text is not None else None
    progress.begin(f"loading {files.directory.name}", 0)
    loaded = load_model(files, dtype=dtype, device=device)
    measured: dict[str, Any] = {}
    if tokens is not None:
        expected = load_model(other, dtype=dtype, device=device) if other else None
        measured = _measure(loaded, expected, tokens, progress)
        del expected  # the tasks need the memory more
    if prepared is not None:
        measured["tasks"] = run_tasks(prepared, files, loaded, progress)
    return Evaluation(
        model=str(model),
        reference=None if reference is None else str(reference),
        text=None if text is None else str(text),
        context=context,
        dtype=dtype,
        n_windows_asked=windows,
        seconds=time.monotonic() - started,
        **measured,
    )


def _windows(
    files: ModelFiles, other: ModelFiles | None, text: str | Path, context: int, windows: int
) -> Tokens:
    """The protocol's windows [n, context], checked against both models."""
    check_context(files, context, f"context {context}")
    if other is not None:
        check_same_vocabulary(files, other)
        check_context(other, context, f"context {context}")
    tokens = cut_windows(encode(files.tokenizer, read_text(text)), context, windows, str(text))
    check_tokens(files, tokens)
    return tokens


def _measure(
    model: PreTrainedModel,
    reference: PreTrainedModel | None,
    windows: Tokens,
    progress: Progress,
) -> dict[str, Any]:
    """One pass over the windows, as the fields of Evaluation."""
    started = time.monotonic()
    fields: dict[str, Any] = {"n_windows": len(windows)}
    if reference is None:
        losses = score(model, windows, progress=progress)
    else:
        comparison = compare(model, reference, windows, progress=progress)
        losses = comparison.loss
        summary = divergence(comparison)
        for name, value in vars(summary).items():
            fields |= _estimate(name, value) if isinstance(value, Estimate) else {name: value}
        fields |= _estimate(
            "reference_perplexity", perplexity(comparison.reference_loss).perplexity
        )
    judged = perplexity(losses)
    fields |= _estimate("perplexity", judged.perplexity) | _estimate("loss", judged.loss)
    fields["n_tokens"] = judged.n_tokens
    fields["scoring_seconds"] = time.monotonic() - started
    return fields


def _estimate(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_standard_error": estimate.standard_error}
