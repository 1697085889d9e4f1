"""Scales of rows and columns in one byte each: code e stands for 2^((e - 128) / 8).

A scale sets the distance between the values that a row can take, and being 4 % off in that costs
next to nothing, so one byte does where two or four would add bits to every weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

STEPS = 8
"""Codes in an octave."""

UNITY = 128
"""The code of 1."""

SCALES: NDArray[np.float32] = np.exp2((np.arange(256) - UNITY) / STEPS).astype(np.float32)
"""The scale of each code: the float32 nearest to the power."""

_BORDERS = np.exp2((np.arange(255) - UNITY + 0.5) / STEPS)

Scale = NDArray[np.uint8] | NDArray[np.float16] | NDArray[np.float32]
"""Scales as they are stored: codes, or numbers."""


def encode_scales(scales: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the codes nearest to some scales, in the ratio.

    Parameters
    ----------
    scales : float64 array
        Positive numbers, of any shape. Beyond 2^±16 they get the first or the last code.

    Returns
    -------
    uint8 array
        Of the same shape.

    Examples
    --------
    >>> encode_scales(np.array([1.0, 2.0, 0.25]))
    array([128, 136, 112], dtype=uint8)
    """
    return np.searchsorted(_BORDERS, scales).astype(np.uint8)


def decode_scales(scale: Scale) -> NDArray[np.float32]:
    """Return stored scales as float32.

    Parameters
    ----------
    scale : uint8, float16 or float32 array
        Codes are looked up, numbers are upcast.

    Returns
    -------
    float32 array
        Of the same shape.
    """
    stored: NDArray[Any] = scale
    return SCALES[stored] if stored.dtype == np.uint8 else stored.astype(np.float32)
