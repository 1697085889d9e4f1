"""What a checkpoint is to the rest of isotone: named tensors that can be read in pieces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

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
"""The dtypes of safetensors whose elements are whole bytes."""


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's name, safetensors dtype tag and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def n_weights(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """Bytes of the dense tensor."""
        return self.n_weights * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class CompanionFile:
    """A file that goes along with the weights: a tokenizer, a generation config, a licence."""

    name: str  # relative, with forward slashes
    content: Path | bytes  # a file to copy, or what to write


class Source(Protocol):
    """A dense checkpoint, read only. Safe to read from several threads."""

    @property
    def tensors(self) -> Sequence[TensorInfo]:
        """All tensors, in the order in which they are stored."""
        ...

    @property
    def config(self) -> dict[str, Any]:
        """The content of config.json; empty where there is none."""
        ...

    @property
    def companions(self) -> Sequence[CompanionFile]:
        """The other files of the model, config.json not among them."""
        ...

    @property
    def skipped(self) -> Sequence[str]:
        """Stored tensors that a Hugging Face model has no place for (some of GGUF's)."""
        ...

    @property
    def n_bytes(self) -> int:
        """Bytes of the weight files on disk."""
        ...

    def read(self, tensor: TensorInfo, start: int, stop: int) -> NDArray[np.uint8]:
        """The little-endian bytes of elements start to stop of the flattened tensor.

        Raises FormatError where they cannot be read.
        """
        ...

    def forget(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Elements start to stop will not be read again: a hint."""
        ...

    def identity(self) -> dict[str, Any]:
        """What must not change between two runs that share work: files, sizes, times (JSON)."""
        ...
