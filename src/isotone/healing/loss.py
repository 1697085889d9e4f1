"""What healing minimises: the divergence from a teacher, or the cross-entropy of the text."""

from __future__ import annotations

from typing import Any

import torch

from isotone.evaluation.losses import divergence_terms, row_slices


def training_loss(
    logits: torch.Tensor, expected: torch.Tensor | None, tokens: torch.Tensor
) -> torch.Tensor:
    """Return the loss that is trained: the divergence with a teacher, else the cross-entropy.

    Parameters
    ----------
    logits : floating tensor, `[B, C, vocabulary]`
        The logits of the student.
    expected : floating tensor, `[B, C, vocabulary]`, optional
        The logits of the teacher, which are overwritten; None to learn the text itself.
    tokens : int64 tensor, `[B, C]`
        The tokens that both models read.

    Returns
    -------
    float32 tensor, scalar
        The loss, in nats for each token.
    """
    return cross_entropy(logits, tokens) if expected is None else divergence(logits, expected)


def divergence(logits: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Return KL(teacher || student), averaged over positions, with a gradient for the student.

    Parameters
    ----------
    logits : floating tensor, `[..., vocabulary]`
        The logits of the student.
    expected : floating tensor, `[..., vocabulary]`
        The logits of the teacher. They are overwritten by the gradient, so that no third array of
        this size is needed.

    Returns
    -------
    float32 tensor, scalar
        The divergence, in nats for each token.

    Notes
    -----
    The cost is one pass, in slices that stay in a core's cache.

    References
    ----------
    Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv 1503.02531.
    """
    loss: torch.Tensor = _Divergence.apply(logits, expected)
    return loss


def cross_entropy(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return -log p of each next token, averaged over positions.

    Parameters
    ----------
    logits : floating tensor, `[B, C, vocabulary]`
        The logits of a model.
    tokens : int64 tensor, `[B, C]`
        The tokens that the model reads; the first of each window is given, not predicted.

    Returns
    -------
    float32 tensor, scalar
        The cross-entropy, in nats for each token.
    """
    rows = logits[:, :-1].flatten(0, 1).float()
    # torch's own mean of evaluation.losses.token_losses: it comes with a fused gradient.
    return torch.nn.functional.cross_entropy(rows, tokens[:, 1:].flatten())


class _Divergence(torch.autograd.Function):  # type: ignore[misc]
    """The mean of evaluation.losses.divergence_terms over rows, with its gradient (q - p) / n."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
        rows, gradients = logits.flatten(0, -2), expected.flatten(0, -2)
        total = torch.zeros((), dtype=torch.float64, device=logits.device)
        for part in row_slices(len(rows), rows):
            log_q = torch.log_softmax(rows[part].float(), -1)
            log_p = torch.log_softmax(gradients[part].float(), -1)
            q, p = log_q.exp(), log_p.exp()
            gradients[part] = ((q - p) / len(rows)).to(gradients.dtype)
            total += divergence_terms(p, q, log_p, log_q).sum()
        ctx.save_for_backward(gradients.view(logits.shape))
        ctx.dtype = logits.dtype
        return (total / len(rows)).float()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (to_logits,) = ctx.saved_tensors
        return (to_logits * gradient).to(ctx.dtype), None
