"""How far a model's predictions are from a reference's, over the scored tokens.

The figures are those of llama.cpp's perplexity tool (tools/perplexity/perplexity.cpp,
`--kl-divergence`): mean, median and 99th percentile of the divergence, "same top p", and the ratio
of the perplexities from paired losses, which is far surer than two perplexities apart. Two things
differ. That tool scores the second half of each window, isotone all but its first token; and it
has no flips: these are Dutta et al., "Accuracy is Not All You Need" (arXiv 2407.09141), with each
token as one question.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isotone.evaluation.estimates import Estimate, exponential, mean
from isotone.evaluation.scoring import TokenComparison


@dataclass(frozen=True)
class Divergence:
    """A model beside a reference.

    kl: mean of KL(reference || model) over tokens, in nats; kl_median, kl_99: its percentiles.
    top1_agreement: share of tokens where both rank the same token first.
    flipped: share of tokens where one of the two ranks the text's own token first and the other
        does not; the sum of lost (right in the reference only) and gained (right in the model
        only). Zero net change of accuracy may hide many flips.
    perplexity_ratio: the model's over the reference's.
    """

    kl: Estimate
    kl_median: float
    kl_99: float
    top1_agreement: Estimate
    flipped: Estimate
    lost: Estimate
    gained: Estimate
    perplexity_ratio: Estimate


def divergence(tokens: TokenComparison) -> Divergence:
    """Sum up a comparison; percentiles interpolate linearly between tokens."""
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
