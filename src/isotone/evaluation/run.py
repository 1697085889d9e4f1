"""`isotone.evaluate`: one call measures a model and returns one record."""

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
from isotone.models.prefix import AUTO, Prefix, check_same_prefix, find_prefix
from isotone.models.text import Tokens, cut_windows, encode, read_text


@dataclass(frozen=True)
class Evaluation:
    """The measured quality of a model; figures that were not asked for are None.

    Each figure has its standard error in a field of its own, over the scored tokens.

    Attributes
    ----------
    model : str
        The model, as it was named.
    reference : str, optional
        The reference, as it was named.
    text : str, optional
        The text, as it was named.
    context : int
        The number of tokens in a window.
    dtype : str
        The dtype in which the model was run.
    n_windows_asked : int
        The number of windows that was asked for.
    n_windows : int, optional
        The number of windows that was scored: fewer where the text ends before.
    n_tokens : int, optional
        The number of scored tokens: all of the text's in each window, but its very first token
        where no prefix predicts it.
    bos : tuple of str, optional
        The tokens that every window began with, as the tokenizer writes them; empty for none.
    loss, loss_standard_error : float, optional
        The mean of -log p(token), in nats.
    perplexity, perplexity_standard_error : float, optional
        The exponential of the mean loss.
    reference_perplexity, reference_perplexity_standard_error : float, optional
        The perplexity of the reference on the same tokens.
    perplexity_ratio, perplexity_ratio_standard_error : float, optional
        The perplexity of the model over that of the reference, from paired losses.
    kl, kl_standard_error : float, optional
        The mean of KL(reference || model) over tokens, in nats.
    kl_median : float, optional
        The median of the same.
    kl_99 : float, optional
        The 99th percentile of the same.
    top1_agreement, top1_agreement_standard_error : float, optional
        The share of tokens where both rank the same token first.
    flipped, flipped_standard_error : float, optional
        The share of tokens that exactly one of the two predicts right: `lost` plus `gained`.
    lost, lost_standard_error : float, optional
        The share of tokens that only the reference predicts right.
    gained, gained_standard_error : float, optional
        The share of tokens that only the model predicts right.
    tasks : dict of dict
        The metrics of each task, with standard errors and `n`, the number of questions.
    scoring_seconds : float, optional
        The duration of the pass over the windows.
    seconds : float
        The duration of everything, loading included.
    """

    model: str
    reference: str | None
    text: str | None
    context: int
    dtype: str
    n_windows_asked: int
    n_windows: int | None = None
    n_tokens: int | None = None
    bos: tuple[str, ...] | None = None
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
    bos: str = AUTO,
    dtype: str = "float32",
    device: str = "cpu",
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a dense or clustered model on a text, on tasks, or both.

    Parameters
    ----------
    model : str or Path
        A dense or clustered model directory, or a hub id.
    text : str or Path, optional
        A UTF-8 file for the perplexity, or `builtin` for the text that Python ships.
    context : int
        The number of tokens in a window, at least 2.
    windows : int
        The number of windows, taken from the start of the text; fewer where it ends before.
    reference : str or Path, optional
        A model whose predictions on the text are compared with; it must have the same vocabulary.
    tasks : sequence of str or Path
        Names that lm-eval knows, and .jsonl files of questions. lm-eval follows the tokenizer's
        rule, whatever `bos` is.
    bos : str
        What every window of the text begins with: `auto` for the tokens that the tokenizer puts
        before every text, `yes` for the beginning-of-sequence token even where it puts none, or
        `no`.
    dtype : str
        `float32`, `bfloat16`, `float16`, or `auto` for the dtype of the files.
    device : str
        Where to run, as torch names it.
    progress : Progress, optional
        Is told what is loaded and scored.

    Returns
    -------
    Evaluation
        The figures, each with its standard error.

    Raises
    ------
    InputError
        If there is nothing to measure, or the inputs do not fit together; what can be known without
        the weights is checked before they are read.
    FormatError
        If a clustered directory is damaged.
    MissingExtraError
        If tasks are asked for and lm-eval is not installed.

    Notes
    -----
    The cost is one forward pass of each model for each window, and a few percent.

    Examples
    --------
    >>> import isotone
    >>> found = isotone.evaluate("clustered", "test.txt", reference="dense")  # doctest: +SKIP
    >>> print(found.perplexity, found.kl, found.top1_agreement)  # doctest: +SKIP
    """
    started = time.monotonic()
    _check_request(text, reference, tasks, bos)
    progress = progress or Silent()
    prepared = prepare_tasks(tasks) if tasks else None
    files = open_files(model)
    other = open_files(reference) if reference is not None else None
    asked = None if text is None else _windows(files, other, text, context, windows, bos)
    progress.begin(f"loading {files.directory.name}", 0)
    loaded = load_model(files, dtype=dtype, device=device)
    measured: dict[str, Any] = {}
    if asked is not None:
        expected = load_model(other, dtype=dtype, device=device) if other else None
        measured = _measure(loaded, expected, *asked, progress)
        del expected  # The tasks need the memory more.
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


def _check_request(
    text: str | Path | None, reference: str | Path | None, tasks: Sequence[str | Path], bos: str
) -> None:
    if text is None and not tasks:
        raise InputError("nothing to measure: give a text, tasks, or both")
    if text is None and reference is not None:
        raise InputError("a reference is compared on a text; give one, or leave the reference out")
    if text is None and bos != AUTO:
        raise InputError(
            f"bos is {bos!r}, and tasks follow the tokenizer's own rule; give a text, or leave bos "
            "out"
        )


def _windows(
    files: ModelFiles,
    other: ModelFiles | None,
    text: str | Path,
    context: int,
    windows: int,
    bos: str,
) -> tuple[Tokens, Prefix]:
    """Return the windows [n, context] of the text and what they begin with.

    Both are checked against both models.
    """
    if other is not None:
        check_same_vocabulary(files, other)
        check_same_prefix(files, other, bos)
    for model in filter(None, (files, other)):
        check_context(model, context, f"context {context}")
    encoded, prefix = encode(files.tokenizer, read_text(text)), find_prefix(files, bos)
    tokens = cut_windows(encoded, context, windows, str(text), prefix.tokens)
    check_tokens(files, tokens)
    return tokens, prefix


def _measure(
    model: PreTrainedModel,
    reference: PreTrainedModel | None,
    windows: Tokens,
    prefix: Prefix,
    progress: Progress,
) -> dict[str, Any]:
    """Return what one pass over the windows gives, as fields of Evaluation."""
    started = time.monotonic()
    fields: dict[str, Any] = {"n_windows": len(windows), "bos": prefix.names}
    how: dict[str, Any] = {"n_prefix": len(prefix), "progress": progress}
    if reference is None:
        losses = score(model, windows, **how)
    else:
        comparison = compare(model, reference, windows, **how)
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
