"""One pass over the windows: forward, reduce at once, keep a few numbers for each token.

Logits live for one batch only, and are reduced in slices of rows that stay in a core's cache (see
`isotone.evaluation.losses`). The reduction then costs a few percent of the forward pass that made
them, and no second copy exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from isotone.engine.progress import Progress, Silent
from isotone.errors import InputError
from isotone.evaluation.comparison import (
    TokenComparison,
    compare_logits,
    expect,
    joined,
)
from isotone.evaluation.losses import scored_rows, token_losses
from isotone.models.text import Tokens

_CPU_BATCH_BYTES = 512 << 20
_COPIES = 2  # The logits, and as much again for what the model needs to make them.


def score(
    model: PreTrainedModel,
    windows: Tokens,
    *,
    n_prefix: int = 0,
    batch: int | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Return the loss of the text's tokens in each window under a causal language model.

    The first token of a window is not scored, since nothing predicts it, and no token of a prefix
    is (see `isotone.models.prefix`): of a window of C tokens the last C - max(1, n_prefix) are.

    Parameters
    ----------
    model : PreTrainedModel
        The model to run, where its weights are.
    windows : int64 array, `[n, C]`
        The tokens to run, at least one of them to be scored in each window.
    n_prefix : int
        The number of tokens at the beginning of each window that are not the text's.
    batch : int, optional
        The number of windows in a forward pass; by default as many as surely fit in memory.
    progress : Progress, optional
        Is told how many tokens are scored.

    Returns
    -------
    float64 array, `[n * (C - max(1, n_prefix))]`
        -log p(token) in nats, window after window.

    Raises
    ------
    InputError
        If the model gives something else than finite numbers.
    """
    losses = []
    size = batch or batch_size(model, windows.shape[1])
    for tokens in _batches(windows, size, "scoring", progress):
        with scoring_mode(model):
            logits = text_part(logits_of(model, tokens), n_prefix)
            for rows, wanted in scored_rows(logits, text_part(tokens, n_prefix)):
                losses.append(token_losses(torch.log_softmax(rows, -1), wanted).cpu())
            del logits, rows
    return _finite(torch.cat(losses).numpy().astype(np.float64))


def compare(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    windows: Tokens,
    *,
    n_prefix: int = 0,
    batch: int | None = None,
    progress: Progress | None = None,
) -> TokenComparison:
    """Score the tokens that `score` does with a model and a reference, in one pass.

    Parameters
    ----------
    model : PreTrainedModel
        The model to judge.
    reference : PreTrainedModel
        The model whose predictions are taken as right, with the same vocabulary.
    windows : int64 array, `[n, C]`
        The tokens to run, at least one of them to be scored in each window.
    n_prefix : int
        The number of tokens at the beginning of each window that are not the text's.
    batch : int, optional
        The number of windows in a forward pass; by default as many as surely fit in memory.
    progress : Progress, optional
        Is told how many tokens are scored.

    Returns
    -------
    TokenComparison
        The figures of all scored tokens.

    Raises
    ------
    InputError
        If the vocabularies differ in size, or if a model gives something else than finite numbers.

    Notes
    -----
    Both models run on the same batch, so at most one batch of logits of each is in memory.
    """
    parts: list[TokenComparison] = []
    size = batch or batch_size(model, windows.shape[1], n_models=2)
    for tokens in _batches(windows, size, "comparing", progress):
        with scoring_mode(model), scoring_mode(reference):
            text = text_part(tokens, n_prefix)
            expected = expect(text_part(logits_of(reference, tokens), n_prefix), text)
            logits = text_part(logits_of(model, tokens), n_prefix)
            if logits.shape != expected.log_probabilities.shape:
                raise InputError(
                    f"the model has logits over {logits.shape[-1]} tokens and the reference over "
                    f"{expected.log_probabilities.shape[-1]}; compare models with one vocabulary"
                )
            parts.append(compare_logits(logits, expected))
            del logits, expected
    whole = joined(parts)
    for values in (whole.loss, whole.reference_loss, whole.divergence):
        _finite(values)
    return whole


def batch_size(model: PreTrainedModel, context: int, *, n_models: int = 1) -> int:
    """Return how many windows go into one forward pass.

    Parameters
    ----------
    model : PreTrainedModel
        The model that will run.
    context : int
        The number of tokens in a window.
    n_models : int
        How many models' logits are in memory at once.

    Returns
    -------
    int
        As many windows as have logits that fit in a quarter of a GPU's free memory, or in 512 MiB
        on the CPU, and at least 1. A window of 1,024 tokens keeps every core busy by itself.
    """
    width = int(model.config.get_text_config().vocab_size)
    window_bytes = n_models * _COPIES * context * width * 4
    budget = _CPU_BATCH_BYTES
    if model.device.type == "cuda":
        budget = int(torch.cuda.mem_get_info(model.device)[0]) // 4
    return max(1, budget // window_bytes)


@contextmanager
def scoring_mode(model: PreTrainedModel) -> Iterator[None]:
    """Turn gradients and dropout off; the model's own mode comes back afterwards.

    Parameters
    ----------
    model : PreTrainedModel
        The model that runs meanwhile.

    Yields
    ------
    None
    """
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def logits_of(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """Return a model's logits over a batch of tokens.

    Parameters
    ----------
    model : PreTrainedModel
        The model to run.
    tokens : int64 tensor, `[B, C]`
        The tokens, on any device.

    Returns
    -------
    floating tensor, `[B, C, vocabulary]`
        The logits, on the model's device and in its dtype.
    """
    return model(input_ids=tokens.to(model.device), use_cache=False).logits


def text_part(values: torch.Tensor, n_prefix: int) -> torch.Tensor:
    """Return what belongs to the text, and to the last token before it, which predicts it.

    Parameters
    ----------
    values : tensor, `[B, C, ...]`
        The tokens of windows, or what a model gives for each of them.
    n_prefix : int
        The number of tokens at the beginning of each window that are not the text's.

    Returns
    -------
    tensor, `[B, C - max(0, n_prefix - 1), ...]`
        A view; all of it for a prefix of one token or none.
    """
    return values[:, max(0, n_prefix - 1) :]


def _batches(
    windows: Tokens, size: int, what: str, progress: Progress | None
) -> Iterator[torch.Tensor]:
    progress = progress or Silent()
    progress.begin(what, windows.size, unit="tokens")
    for start in range(0, len(windows), size):
        batch = windows[start : start + size]
        yield torch.from_numpy(np.ascontiguousarray(batch))
        progress.advance(batch.size)


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise InputError(
            f"the model gives {values[bad[0]]} for {len(bad)} of {len(values)} tokens; its weights "
            "are broken, or the dtype is too narrow for it (use float32)"
        )
    return values
