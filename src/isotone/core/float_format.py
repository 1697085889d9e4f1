"""The three floating formats that isotone clusters, as bit patterns.

NumPy has no bfloat16, and the solver works on patterns anyway, so weights travel as unsigned
integers of the format's width and are upcast to float32 where their values are needed.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[Any]
"""Weights as bit patterns: uint16 for BF16 and F16, uint32 for F32."""


class FloatFormat(Enum):
    """A format that can be clustered; the value is the name that safetensors gives it.

    Examples
    --------
    >>> FloatFormat.BF16.downcast(np.float32([1.0, -2.0]))
    array([16256, 49152], dtype=uint16)
    >>> FloatFormat.BF16.upcast(np.uint16([16256, 49152]))
    array([ 1., -2.], dtype=float32)
    """

    BF16 = "BF16"
    F16 = "F16"
    F32 = "F32"

    @property
    def bits_dtype(self) -> np.dtype[Any]:
        """The unsigned integer that holds the pattern of one weight."""
        return np.dtype("<u4") if self is FloatFormat.F32 else np.dtype("<u2")

    @property
    def itemsize(self) -> int:
        """Bytes of one weight."""
        return self.bits_dtype.itemsize

    @property
    def native(self) -> int:
        """The number by which the native module knows the format."""
        return list(FloatFormat).index(self)

    def upcast(self, bits: Bits) -> NDArray[np.float32]:
        """Return the float32 values of bit patterns; exact.

        Parameters
        ----------
        bits : uint16 or uint32 array
            Patterns of this format, of any shape.

        Returns
        -------
        float32 array
            Of the same shape.
        """
        if self is FloatFormat.BF16:
            return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
        if self is FloatFormat.F16:
            return np.ascontiguousarray(bits).view(np.float16).astype(np.float32)
        return np.ascontiguousarray(bits).view(np.float32)

    def downcast(self, values: NDArray[np.float32]) -> Bits:
        """Return the bit patterns nearest to float32 values, ties to even.

        Parameters
        ----------
        values : float32 array
            Of any shape. Finite values stay finite: beyond the largest number of the format they
            become that number.

        Returns
        -------
        uint16 or uint32 array
            Of the same shape.
        """
        values = np.ascontiguousarray(values, dtype=np.float32)
        if self is FloatFormat.BF16:
            bits = values.view(np.uint32)
            rounded = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
            # Above the largest bfloat16, rounding would carry into infinity.
            overflow = ((rounded & np.uint32(0x7F800000)) == 0x7F800000) & np.isfinite(values)
            sign = (bits >> np.uint32(16)) & np.uint32(0x8000)
            patterns = np.where(overflow, sign | np.uint32(0x7F7F), rounded >> np.uint32(16))
            return patterns.astype(np.uint16)
        if self is FloatFormat.F16:
            largest = np.float32(np.finfo(np.float16).max)
            return np.clip(values, -largest, largest).astype(np.float16).view(np.uint16)
        return values.view(np.uint32)
