"""One GGUF file: its tensors read in pieces, its blocks dequantised as they are read.

What the numbers in a block mean is left to the `gguf` package. As in safetensors_file, reading
happens by position and without a mapping, so that threads can share the file and its pages do not
count as ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from isotone.checkpoint.files.local_file import PositionedFile
from isotone.checkpoint.gguf.header import GgufTensor, Metadata, read_header
from isotone.core.float_format import Bits, FloatFormat
from isotone.errors import FormatError

_FLOATS = {
    GGMLQuantizationType.F32: FloatFormat.F32,
    GGMLQuantizationType.F16: FloatFormat.F16,
    GGMLQuantizationType.BF16: FloatFormat.BF16,
}


@dataclass(frozen=True)
class GgufFile:
    """An open file. `metadata` has the scalars and strings, `tensors` are in the file's order."""

    path: Path
    metadata: Metadata
    tensors: tuple[GgufTensor, ...]
    n_bytes: int
    _file: PositionedFile

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file and check its header; raises FormatError, naming the file.

        Linear in the header: 0.1 s for a vocabulary of 50,000.
        """
        file = PositionedFile(path)
        metadata, tensors = read_header(
            path, file.n_bytes, lambda n_bytes, position: file.read(n_bytes, position).tobytes()
        )
        return cls(path, metadata, tensors, file.n_bytes, file)

    @property
    def architecture(self) -> str:
        """What kind of model it says it is; raises FormatError where it does not say."""
        architecture = self.metadata.get("general.architecture")
        if not isinstance(architecture, str) or not architecture:
            raise FormatError(f"{self.path}: does not say its general.architecture")
        return architecture

    def read_bits(self, tensor: GgufTensor, start: int, stop: int) -> Bits:
        """Read elements start to stop of a flattened tensor of plain floats, as patterns.

        Raises FormatError where they cannot be read, ValueError where `float_format` is None.
        """
        kept = float_format(tensor)
        if kept is None:
            raise ValueError(f"{tensor.name} is of type {tensor.type.name}, not of plain floats")
        position = tensor.offset + start * kept.itemsize
        raw = self._file.read((stop - start) * kept.itemsize, position)
        return raw.view(kept.bits_dtype)

    def read_values(self, tensor: GgufTensor, start: int, stop: int) -> NDArray[np.float32]:
        """Read elements start to stop of a flattened tensor as float32 values `[stop - start]`.

        Reads the blocks that the range touches and no others; while it computes it takes a few
        times the memory of what it returns. Raises FormatError where they cannot be read,
        NotImplementedError where `is_readable` is False.
        """
        kept = float_format(tensor)
        if kept is not None:
            return kept.upcast(self.read_bits(tensor, start, stop))
        block, block_bytes = GGML_QUANT_SIZES[tensor.type]
        first, last = start // block, -(-stop // block)
        position = tensor.offset + first * block_bytes
        raw = self._file.read((last - first) * block_bytes, position)
        # Scales that are not finite make weights that are not: those are refused by name later.
        with np.errstate(over="ignore", invalid="ignore"):
            values: NDArray[np.float32] = dequantize(raw, tensor.type)
        return values[start - first * block : stop - first * block]


def float_format(tensor: GgufTensor) -> FloatFormat | None:
    """Name the format of a tensor of plain floats; None for one of blocks or integers."""
    return _FLOATS.get(tensor.type)


def is_readable(tensor: GgufTensor) -> bool:
    """Tell whether its values can be had: plain floats, or blocks that the gguf package knows."""
    return float_format(tensor) is not None or _is_dequantizable(tensor.type)


@cache
def _is_dequantizable(kind: GGMLQuantizationType) -> bool:
    # Asking builds the tables that some types need, so that threads find them built.
    try:
        dequantize(np.zeros(GGML_QUANT_SIZES[kind][1], np.uint8), kind)
    except NotImplementedError:
        return False
    return True
