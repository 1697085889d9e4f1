"""What is known of a stored tensor before any of it is read: name, dtype and shape."""

from __future__ import annotations

import math
from dataclasses import dataclass

DTYPE_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "C64": 8,
}
"""The bytes of one element, for each dtype of safetensors whose elements are whole bytes."""


@dataclass(frozen=True)
class TensorInfo:
    """The name, dtype and shape of a stored tensor.

    Attributes
    ----------
    name : str
        The tensor's name in the checkpoint.
    dtype : str
        A dtype tag of safetensors, one of `DTYPE_BYTES`.
    shape : tuple of int
        The length of each axis, in elements; `()` for a scalar.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def n_weights(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """The bytes of the dense tensor."""
        return self.n_weights * DTYPE_BYTES[self.dtype]
