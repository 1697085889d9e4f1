"""A model's predictions beside a reference's, token by token.

The reference's logits are turned into what is needed of them once (`expect`), and any number of
models can then be compared with it. Everything is reduced in slices of rows that stay in a core's
cache (see `isotone.evaluation.losses`), so no second copy of the logits exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from isotone.evaluation.losses import divergence_terms, scored_rows, token_losses


@dataclass(frozen=True)
class TokenComparison:
    """Figures of each scored token, under a model and a reference.

    Attributes
    ----------
    loss : float64 array, `[n]`
        The model's -log p(token), in nats.
    reference_loss : float64 array, `[n]`
        The same under the reference.
    divergence : float64 array, `[n]`
        KL(reference || model) of the two next-token distributions, in nats.
    same_top : bool array, `[n]`
        Whether both rank the same token first.
    right : bool array, `[n]`
        Whether the model ranks the text's own token first.
    reference_right : bool array, `[n]`
        Whether the reference ranks the text's own token first.
    """

    loss: NDArray[np.float64]
    reference_loss: NDArray[np.float64]
    divergence: NDArray[np.float64]
    same_top: NDArray[np.bool_]
    right: NDArray[np.bool_]
    reference_right: NDArray[np.bool_]


@dataclass(frozen=True)
class Expected:
    """What a reference predicts for a batch of tokens.

    Attributes
    ----------
    tokens : int64 tensor, `[B, C]`
        The tokens that the reference has read.
    log_probabilities : float32 tensor, `[B, C, vocabulary]`
        The logarithms of the predicted probabilities of what comes next.
    loss : float32 tensor, `[n]`
        -log p of tokens 2 to C of each window, in nats.
    top : int64 tensor, `[n]`
        The token that is ranked first, in the place of each of these.
    """

    tokens: torch.Tensor
    log_probabilities: torch.Tensor
    loss: torch.Tensor
    top: torch.Tensor


def expect(logits: torch.Tensor, tokens: torch.Tensor) -> Expected:
    """Return what a reference predicts; its logits become log-probabilities in place.

    Parameters
    ----------
    logits : floating tensor, `[B, C, vocabulary]`
        The logits of the reference. Those of another dtype than float32 are copied.
    tokens : int64 tensor, `[B, C]`
        The tokens that the reference has read.

    Returns
    -------
    Expected
        The predictions, to compare a model's logits with.
    """
    logits = logits.float()
    loss, top = [], []
    for rows, wanted in scored_rows(logits, tokens):
        top.append(rows.max(-1).indices)  # argmax is slower
        rows.copy_(torch.log_softmax(rows, -1))
        loss.append(token_losses(rows, wanted))
    return Expected(tokens, logits, torch.cat(loss), torch.cat(top))


def compare_logits(logits: torch.Tensor, expected: Expected) -> TokenComparison:
    """Compare a model's logits with what a reference predicts for the same tokens.

    Parameters
    ----------
    logits : floating tensor, `[B, C, vocabulary]`
        The logits of the model; not changed.
    expected : Expected
        What `expect` gave for the same tokens.

    Returns
    -------
    TokenComparison
        The figures of tokens 2 to C of each window. What is not finite stays so.

    Notes
    -----
    It takes a few megabytes of memory, whatever the size of the logits.
    """
    tokens = expected.tokens
    pairs = zip(
        scored_rows(logits, tokens), scored_rows(expected.log_probabilities, tokens), strict=True
    )
    kept = [_compared(rows, log_p.to(rows.device), wanted) for (rows, wanted), (log_p, _) in pairs]
    loss, top, divergence = (torch.cat(column).cpu() for column in zip(*kept, strict=True))
    wanted, reference_top = tokens[:, 1:].flatten().cpu(), expected.top.cpu()
    return TokenComparison(
        loss=loss.numpy().astype(np.float64),
        reference_loss=expected.loss.cpu().numpy().astype(np.float64),
        divergence=divergence.numpy().astype(np.float64),
        same_top=(top == reference_top).numpy(),
        right=(top == wanted).numpy(),
        reference_right=(reference_top == wanted).numpy(),
    )


def joined(parts: Sequence[TokenComparison]) -> TokenComparison:
    """Return the comparisons of several batches as one.

    Parameters
    ----------
    parts : sequence of TokenComparison
        At least one, in the order of the batches.

    Returns
    -------
    TokenComparison
        The figures of all their tokens.
    """
    columns = zip(*([*vars(part).values()] for part in parts), strict=True)
    return TokenComparison(*map(np.concatenate, columns))


def _compared(
    logits: torch.Tensor, log_p: torch.Tensor, wanted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the loss, the top token and the divergence of each of [n, vocabulary] rows."""
    log_q = torch.log_softmax(logits, -1)
    loss, top = token_losses(log_q, wanted), logits.max(-1).indices
    return loss, top, divergence_terms(log_p.exp(), log_q.exp(), log_p, log_q).sum(-1)
