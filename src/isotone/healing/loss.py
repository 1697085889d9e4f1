"""What is minimised: the divergence from a teacher's predictions, or the text's own likelihood."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

_SLICE_BYTES = 2 << 20


def divergence(logits: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student) in nats, averaged over positions (Hinton et al., arXiv 1503.02531).

    logits, expected: [..., vocabulary], the student's and the teacher's, in the same shape and any
    floating dtype. `expected` is used up: its memory takes the gradient, so that no third array of
    that size is needed. Cost: one pass in slices that stay in a cache.
    """
    loss: torch.Tensor = _Divergence.apply(logits, expected)
    return loss


def cross_entropy(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """-log p of each next token, averaged: logits [B, C, vocabulary], tokens [B, C]."""
    rows = logits[:, :-1].flatten(0, 1).float()
    return torch.nn.functional.cross_entropy(rows, tokens[:, 1:].flatten())


class _Divergence(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
        rows, gradients = logits.flatten(0, -2), expected.flatten(0, -2)
        total = torch.zeros((), dtype=torch.float64, device=logits.device)
        for part in _slices(rows):
            log_q = torch.log_softmax(rows[part].float(), -1)
            log_p = torch.log_softmax(gradients[part].float(), -1)
            q, p = log_q.exp(), log_p.exp()
            gradients[part] = ((q - p) / len(rows)).to(gradients.dtype)
            # q - p + p * log(p / q) sums to the same, without a negative term; see scoring.py.
            total += q.sub_(p).addcmul_(p, log_p.sub_(log_q)).sum()
        ctx.save_for_backward(gradients.view(logits.shape))
        ctx.dtype = logits.dtype
        return (total / len(rows)).float()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (to_logits,) = ctx.saved_tensors
        return (to_logits * gradient).to(ctx.dtype), None


def _slices(rows: torch.Tensor) -> Iterator[slice]:
    n_rows = max(1, _SLICE_BYTES // (4 * rows.shape[-1]))
    if rows.device.type != "cpu":
        n_rows *= 64  # a GPU wants more work in one launch
    for start in range(0, len(rows), n_rows):
        yield slice(start, min(start + n_rows, len(rows)))
