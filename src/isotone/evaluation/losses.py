"""Cross-entropy and KL divergence of next-token predictions: each formula is stated here once.

Scoring sums them for each token, training sums them over a batch and needs their gradient (see
`isotone.healing.loss`). Logits are large (a window of 1,024 tokens over 49,152 entries is 201 MB),
so both reduce them in slices of rows that stay in a core's cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

_SLICE_BYTES = 2 << 20


def row_slices(n_rows: int, logits: torch.Tensor) -> Iterator[slice]:
    """Yield slices of rows of logits that fit in a core's cache as float32.

    Parameters
    ----------
    n_rows : int
        The number of rows to cover.
    logits : tensor, `[..., vocabulary]`
        The logits that are cut: their width and their device decide the size of a slice.

    Yields
    ------
    slice
        Consecutive slices that together cover `n_rows` rows.
    """
    size = max(1, _SLICE_BYTES // (4 * logits.shape[-1]))
    if logits.device.type != "cpu":
        size *= 64  # A GPU needs more work in one launch.
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))


def scored_rows(
    logits: torch.Tensor, tokens: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the rows of logits that predict tokens 2 to C of each window, with those tokens.

    Parameters
    ----------
    logits : floating tensor, `[B, C, vocabulary]`
        The logits of a model.
    tokens : int64 tensor, `[B, C]`
        The tokens that the model has read, on any device.

    Yields
    ------
    float32 tensor, `[n, vocabulary]`, and int64 tensor, `[n]`
        A slice of rows, a view where the logits are float32, and the tokens that came next.
    """
    for window, wanted in zip(logits, tokens[:, 1:].to(logits.device), strict=True):
        for part in row_slices(len(wanted), logits):
            yield window[part].float(), wanted[part]


def token_losses(log_probabilities: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of each token, which is -log p(token).

    Parameters
    ----------
    log_probabilities : float32 tensor, `[n, vocabulary]`
        The logarithms of the predicted probabilities, as `torch.log_softmax` gives them.
    tokens : int64 tensor, `[n]`
        The tokens that came next.

    Returns
    -------
    float32 tensor, `[n]`
        The losses, in nats.
    """
    return -log_probabilities.gather(1, tokens[:, None])[:, 0]


def divergence_terms(
    p: torch.Tensor, q: torch.Tensor, log_p: torch.Tensor, log_q: torch.Tensor
) -> torch.Tensor:
    """Return the terms of KL(p || q), whose sum over the vocabulary is the divergence.

    A term is q - p + p * log(p / q). These sum to the same as p * log(p / q), since p and q both
    sum to one, but no term is negative, and an error in either log-sum-exp cancels to first order.

    Parameters
    ----------
    p : float32 tensor, `[n, vocabulary]`
        The probabilities of the reference.
    q : float32 tensor, `[n, vocabulary]`
        The probabilities of the model. Overwritten by the result.
    log_p : float32 tensor, `[n, vocabulary]`
        The logarithms of `p`.
    log_q : float32 tensor, `[n, vocabulary]`
        The logarithms of `q`. Overwritten.

    Returns
    -------
    float32 tensor, `[n, vocabulary]`
        The terms, in nats; the memory is that of `q`.

    References
    ----------
    Kullback and Leibler, "On Information and Sufficiency", 1951.
    """
    return q.sub_(p).addcmul_(p, log_q.sub_(log_p), value=-1.0)
