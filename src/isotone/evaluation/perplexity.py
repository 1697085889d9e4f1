"""Perplexity: exp of the mean loss over the scored tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from isotone.evaluation.estimates import Estimate, exponential, mean


@dataclass(frozen=True)
class Perplexity:
    """loss: mean negative log likelihood, in nats; perplexity: exp of it; over n_tokens."""

    perplexity: Estimate
    loss: Estimate
    n_tokens: int


def perplexity(losses: NDArray[Any]) -> Perplexity:
    """Perplexity from losses [n], with the standard errors that llama.cpp reports."""
    loss = mean(losses)
    return Perplexity(exponential(loss), loss, len(losses))
