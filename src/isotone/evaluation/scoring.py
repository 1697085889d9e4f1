"""One pass over the windows: forward, reduce at once, keep a few numbers per token.

Logits are the large thing here (a window of 1,024 tokens over 49,152 entries is 201 MB), so they
live for one batch only, and are reduced in slices of tokens that stay in a core's cache: the
reduction then costs a few percent of the forward pass that made them, and no second copy exists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from isotone.engine.progress import Progress, Silent
from isotone.errors import InputError
from isotone.models.windows import Tokens

_SLICE_BYTES = 2 << 20
_CPU_BATCH_BYTES = 512 << 20
_COPIES = 2  # logits, and as much again for what the model needs to make them


@dataclass(frozen=True)
class TokenScores:
    """What is kept of each scored token [n]. loss: -log p(token), in nats."""

    loss: NDArray[np.float64]


@dataclass(frozen=True)
class TokenComparison:
    """What is kept of each scored token [n] under a model and a reference.

    divergence: KL(reference || model) of the two next-token distributions, in nats.
    same_top: both rank the same token first. right, reference_right: that token is the text's.
    """

    loss: NDArray[np.float64]
    reference_loss: NDArray[np.float64]
    divergence: NDArray[np.float64]
    same_top: NDArray[np.bool_]
    right: NDArray[np.bool_]
    reference_right: NDArray[np.bool_]


def score(
    model: PreTrainedModel,
    windows: Tokens,
    *,
    batch: int | None = None,
    progress: Progress | None = None,
) -> TokenScores:
    """Score tokens 2 to C of each window [n, C] with a causal language model of transformers.

    batch: windows per forward pass; by default as many as memory is sure to hold.
    Raises InputError where the model gives something else than finite numbers.
    """
    losses = []
    size = batch or batch_size(model, windows.shape[1])
    for tokens in _batches(windows, size, "scoring", progress):
        with scoring_mode(model):
            logits = logits_of(model, tokens)
            targets = _targets(tokens, logits)
            for rows, wanted in _slices(logits, targets):
                losses.append(_losses(rows, wanted))
            del logits, rows
    return TokenScores(_finite(torch.cat(losses).numpy().astype(np.float64)))


def compare(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    windows: Tokens,
    *,
    batch: int | None = None,
    progress: Progress | None = None,
) -> TokenComparison:
    """Score tokens 2 to C of each window [n, C] with a model and a reference, in one pass.

    Both run on the same batch, so at most one batch of logits of each is in memory.
    Raises InputError as score does, and where the two have vocabularies of different sizes.
    """
    parts: list[TokenComparison] = []
    size = batch or batch_size(model, windows.shape[1], n_models=2)
    for tokens in _batches(windows, size, "comparing", progress):
        with scoring_mode(model), scoring_mode(reference):
            expected = expect(logits_of(reference, tokens), tokens)
            logits = logits_of(model, tokens)
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


@dataclass(frozen=True)
class Expected:
    """What a reference makes of a batch of tokens [B, C].

    log_probabilities: [B, C, V] float32, of what comes next. loss, top: of tokens 2 to C, [n]: the
    loss of the text's own token, and the token that is ranked first.
    """

    tokens: torch.Tensor
    log_probabilities: torch.Tensor
    loss: torch.Tensor
    top: torch.Tensor


def expect(logits: torch.Tensor, tokens: torch.Tensor) -> Expected:
    """What a reference's logits [B, C, V] say; they are turned into log-probabilities in place.

    Logits of another dtype than float32 are copied.
    """
    logits = logits.float()
    loss, top = [], []
    for rows, wanted in _slices(logits, _targets(tokens, logits)):
        top.append(rows.max(-1).indices)  # argmax is slower
        rows.copy_(torch.log_softmax(rows, -1))
        loss.append(-rows.gather(1, wanted[:, None])[:, 0])
    return Expected(tokens, logits, torch.cat(loss), torch.cat(top))


def compare_logits(logits: torch.Tensor, expected: Expected) -> TokenComparison:
    """Compare a model's logits [B, C, V] with what a reference makes of the same tokens.

    What is not finite stays so. Memory: a few MB, whatever the size of the logits.
    """
    targets = _targets(expected.tokens, logits)
    pairs = zip(_slices(logits, targets), _slices(expected.log_probabilities, targets), strict=True)
    kept = [
        _comparison(rows, log_p.to(rows.device), wanted) for (rows, wanted), (log_p, _) in pairs
    ]
    loss, top, divergence = (torch.cat(column).cpu() for column in zip(*kept, strict=True))
    wanted, reference_top = targets.flatten().cpu(), expected.top.cpu()
    return TokenComparison(
        loss=loss.numpy().astype(np.float64),
        reference_loss=expected.loss.cpu().numpy().astype(np.float64),
        divergence=divergence.numpy().astype(np.float64),
        same_top=(top == reference_top).numpy(),
        right=(top == wanted).numpy(),
        reference_right=(reference_top == wanted).numpy(),
    )


def joined(parts: Sequence[TokenComparison]) -> TokenComparison:
    """Comparisons of several batches as one."""
    columns = zip(*([*vars(part).values()] for part in parts), strict=True)
    return TokenComparison(*map(np.concatenate, columns))


def batch_size(model: PreTrainedModel, context: int, *, n_models: int = 1) -> int:
    """Windows whose logits fit: in a quarter of a GPU's free memory, or in 512 MiB on the CPU.

    One window at least. A window of 1,024 tokens keeps every core busy by itself.
    """
    width = int(model.config.get_text_config().vocab_size)
    window_bytes = n_models * _COPIES * context * width * 4
    budget = _CPU_BATCH_BYTES
    if model.device.type == "cuda":
        budget = int(torch.cuda.mem_get_info(model.device)[0]) // 4
    return max(1, budget // window_bytes)


@contextmanager
def scoring_mode(model: PreTrainedModel) -> Iterator[None]:
    """No gradients, no dropout; the model's own mode comes back afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def _batches(
    windows: Tokens, size: int, what: str, progress: Progress | None
) -> Iterator[torch.Tensor]:
    progress = progress or Silent()
    progress.begin(what, windows.size, unit="tokens")
    for start in range(0, len(windows), size):
        batch = windows[start : start + size]
        yield torch.from_numpy(np.ascontiguousarray(batch))
        progress.advance(batch.size)


def logits_of(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """Logits [B, C, V] of tokens [B, C], where the model has them."""
    return model(input_ids=tokens.to(model.device), use_cache=False).logits  # [B, C, V]


def _targets(tokens: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return tokens[:, 1:].to(logits.device)  # [B, C - 1]


def _slices(
    logits: torch.Tensor, targets: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Rows of logits [n, V] in float32 with what came next [n], a cacheful at a time."""
    n_rows = max(1, _SLICE_BYTES // (4 * logits.shape[-1]))
    if logits.device.type != "cpu":
        n_rows *= 64  # a GPU wants more work in one launch
    for window, wanted in zip(logits, targets, strict=True):
        for start in range(0, len(wanted), n_rows):
            stop = min(start + n_rows, len(wanted))
            yield window[start:stop].float(), wanted[start:stop]


def _losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none").cpu()


def _comparison(
    logits: torch.Tensor, log_p: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss, top token, divergence: [n] each.

    The divergence of q from p is summed as q - p + p * log(p / q). That is the same, since both
    sum to one; but no term is negative, and an error in either log-sum-exp cancels to first order.
    """
    log_q = torch.log_softmax(logits, -1)
    loss, top = -log_q.gather(1, targets[:, None])[:, 0], logits.max(-1).indices
    q, p = log_q.exp(), log_p.exp()
    divergence = q.sub_(p).addcmul_(p, log_q.sub_(log_p), value=-1.0).sum(-1)
    return loss, top, divergence


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise InputError(
            f"the model gives {values[bad[0]]} for {len(bad)} of {len(values)} tokens; its weights "
            "are broken, or the dtype is too narrow for it (use float32)"
        )
    return values
