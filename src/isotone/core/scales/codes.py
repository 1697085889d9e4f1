"""Factors of rows and columns in one byte each: code e stands for 2^((e - 128) / 8).

A factor sets the distance between the values that a row can take, and being 4 % off in that costs
next to nothing, so a byte does where two or four would add bits to every weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

STEPS = 8
"""Codes an octave."""

UNITY = 128
"""The code of 1."""

SCALES: NDArray[np.float32] = np.exp2((np.arange(256) - UNITY) / STEPS).astype(np.float32)
"""The factor of each code: the float32 nearest to the power."""

_BORDERS = np.exp2((np.arange(255) - UNITY + 0.5) / STEPS)

Scale = NDArray[np.uint8] | NDArray[np.float16] | NDArray[np.float32]
"""Factors as they are stored: codes, or numbers."""


def encode_scales(factors: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The codes nearest to some positive factors, in the ratio; beyond 2^±16, the last one."""
    return np.searchsorted(_BORDERS, factors).astype(np.uint8)


def decode_scales(scale: Scale) -> NDArray[np.float32]:
    """Stored factors as float32: codes are looked up, numbers widened."""
    stored: NDArray[Any] = scale
    return SCALES[stored] if stored.dtype == np.uint8 else stored.astype(np.float32)
