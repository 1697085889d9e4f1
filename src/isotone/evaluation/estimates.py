"""Means with their standard errors, over scored tokens.

Tokens are taken as independent, as llama.cpp's perplexity tool does; those of one window are not
quite, so true errors are somewhat larger.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error; the error is nan where there is one observation."""

    value: float
    standard_error: float


def mean(values: NDArray[Any]) -> Estimate:
    """The mean of values [n], with standard error sqrt(sample variance / n)."""
    n = len(values)
    variance = float(np.var(values, ddof=1, dtype=np.float64)) if n > 1 else math.nan
    return Estimate(float(np.mean(values, dtype=np.float64)), math.sqrt(variance / n))


def exponential(estimate: Estimate) -> Estimate:
    """Give exp(x) of an estimate x; its standard error is exp(x) times that of x (delta method)."""
    value = math.exp(estimate.value) if estimate.value < 709.0 else math.inf
    return Estimate(value, value * estimate.standard_error)
