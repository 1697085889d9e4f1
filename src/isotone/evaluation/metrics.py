"""Perplexity and divergence over the scored tokens, with standard errors.

The figures are those of llama.cpp's perplexity tool (tools/perplexity/perplexity.cpp,
`--kl-divergence`): mean, median and 99th percentile of the divergence, "same top p", and the ratio
of the perplexities from paired losses, which is far more precise than two separate perplexities.
Two things differ. That tool scores the second half of each window, isotone all but its first token;
and that tool has no flips: these are Dutta et al., "Accuracy is Not All You Need"
(arXiv 2407.09141), with each token as one question.

Standard errors take tokens as independent, as that tool does. The tokens of one window are not
quite independent, so the true errors are somewhat larger.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotone.evaluation.comparison import TokenComparison


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error.

    Attributes
    ----------
    value : float
        The estimated value.
    standard_error : float
        The standard error of the value; NaN where there is only one observation.
    """

    value: float
    standard_error: float


@dataclass(frozen=True)
class Perplexity:
    """How well a model predicts a text.

    Attributes
    ----------
    perplexity : Estimate
        The exponential of the mean loss.
    loss : Estimate
        The mean of -log p(token), in nats.
    n_tokens : int
        The number of scored tokens.
    """

    perplexity: Estimate
    loss: Estimate
    n_tokens: int


@dataclass(frozen=True)
class Divergence:
    """How far a model's predictions are from a reference's.

    Attributes
    ----------
    kl : Estimate
        The mean of KL(reference || model) over tokens, in nats.
    kl_median : float
        The median of the same.
    kl_99 : float
        The 99th percentile of the same.
    top1_agreement : Estimate
        The share of tokens where both rank the same token first.
    flipped : Estimate
        The share of tokens where one of the two ranks the text's own token first and the other
        does not: the sum of `lost` and `gained`. An unchanged accuracy may hide many flips.
    lost : Estimate
        The share of tokens that only the reference predicts right.
    gained : Estimate
        The share of tokens that only the model predicts right.
    perplexity_ratio : Estimate
        The perplexity of the model over that of the reference.
    """

    kl: Estimate
    kl_median: float
    kl_99: float
    top1_agreement: Estimate
    flipped: Estimate
    lost: Estimate
    gained: Estimate
    perplexity_ratio: Estimate


def mean(values: NDArray[Any]) -> Estimate:
    """Return the mean of observations.

    Parameters
    ----------
    values : array, `[n]`
        Numbers or booleans, at least one.

    Returns
    -------
    Estimate
        The mean, with the standard error sqrt(sample variance / n).

    Examples
    --------
    >>> mean(np.array([1.0, 3.0]))
    Estimate(value=2.0, standard_error=1.0)
    """
    n = len(values)
    variance = float(np.var(values, ddof=1, dtype=np.float64)) if n > 1 else math.nan
    return Estimate(float(np.mean(values, dtype=np.float64)), math.sqrt(variance / n))


def exponential(estimate: Estimate) -> Estimate:
    """Return exp(x) of an estimate x.

    Parameters
    ----------
    estimate : Estimate
        The estimate x.

    Returns
    -------
    Estimate
        The standard error is exp(x) times that of x (delta method); both are infinite where
        float64 cannot hold exp(x).
    """
    value = math.exp(estimate.value) if estimate.value < 709.0 else math.inf
    return Estimate(value, value * estimate.standard_error)


def perplexity(losses: NDArray[Any]) -> Perplexity:
    """Return the perplexity that losses come to.

    Parameters
    ----------
    losses : float array, `[n]`
        -log p(token) of each scored token, in nats.

    Returns
    -------
    Perplexity
        The perplexity and the mean loss, with the standard errors that llama.cpp reports.

    Examples
    --------
    >>> perplexity(np.log([2.0, 8.0])).perplexity.value
    4.0
    """
    loss = mean(losses)
    return Perplexity(exponential(loss), loss, len(losses))


def divergence(tokens: TokenComparison) -> Divergence:
    """Summarise a comparison over its tokens.

    Parameters
    ----------
    tokens : TokenComparison
        The figures of each scored token.

    Returns
    -------
    Divergence
        The summary; percentiles interpolate linearly between tokens.
    """
    median, high = np.percentile(tokens.divergence, (50.0, 99.0))
    return Divergence(
        kl=mean(tokens.divergence),
        kl_median=float(median),
        kl_99=float(high),
        top1_agreement=mean(tokens.same_top),
        flipped=mean(tokens.right != tokens.reference_right),
        lost=mean(tokens.reference_right & ~tokens.right),
        gained=mean(tokens.right & ~tokens.reference_right),
        perplexity_ratio=exponential(mean(tokens.loss - tokens.reference_loss)),
    )
