"""Reads one GGUF file: its tensors in pieces, its blocks dequantised as they are read.

What the numbers in a block mean is left to the `gguf` package. Like safetensors files, GGUF files
are read by position and not mapped, so that threads can share the file and its pages do not count
as memory of this process.
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

from isotone.checkpoint.files.lfs import refuse_pointer_file
from isotone.checkpoint.files.local_file import PositionedFile
from isotone.checkpoint.gguf.header import GgufTensor, Metadata, read_header
from isotone.checkpoint.gguf.split import n_parts_by_name, one_part
from isotone.core.float_format import Bits, FloatFormat
from isotone.errors import FormatError

_FLOATS = {
    GGMLQuantizationType.F32: FloatFormat.F32,
    GGMLQuantizationType.F16: FloatFormat.F16,
    GGMLQuantizationType.BF16: FloatFormat.BF16,
}


@dataclass(frozen=True)
class GgufFile:
    """An open file; safe to read from several threads, and it pickles.

    Attributes
    ----------
    path : Path
        The file.
    metadata : dict of str to int, float or str
        The scalars and strings of its metadata; arrays are left out.
    tensors : tuple of GgufTensor
        Its tensors, in the order of their data.
    n_bytes : int
        The size of the file in bytes.
    """

    path: Path
    metadata: Metadata
    tensors: tuple[GgufTensor, ...]
    n_bytes: int
    _file: PositionedFile

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file and check its header.

        Parameters
        ----------
        path : Path
            A file of this machine.

        Returns
        -------
        GgufFile
            The open file.

        Raises
        ------
        FormatError
            If the file cannot be read, is no GGUF file, or is damaged.
        InputError
            If it is one part of several.

        Notes
        -----
        The time is linear in the header: 0.1 s for a vocabulary of 50,000.
        """
        refuse_pointer_file(path)
        if (n_parts := n_parts_by_name(path.name)) > 1:
            raise one_part(path, n_parts)
        file = PositionedFile(path)
        metadata, tensors = read_header(
            path, file.n_bytes, lambda n_bytes, position: file.read(n_bytes, position).tobytes()
        )
        counted = metadata.get("split.count", 1)
        if isinstance(counted, int) and counted > 1:
            raise one_part(path, counted)
        return cls(path, metadata, tensors, file.n_bytes, file)

    @property
    def architecture(self) -> str:
        """The architecture that the metadata name; FormatError if they name none."""
        architecture = self.metadata.get("general.architecture")
        if not isinstance(architecture, str) or not architecture:
            raise FormatError(f"{self.path}: does not say its general.architecture")
        return architecture

    def read_bits(self, tensor: GgufTensor, start: int, stop: int) -> Bits:
        """Read a range of a flattened tensor of plain floats as bit patterns.

        Parameters
        ----------
        tensor : GgufTensor
            A tensor whose `float_format` is not None.
        start, stop : int
            The range in elements; `stop` is not part of it.

        Returns
        -------
        uint16 or uint32 array, `[stop - start]`
            The bit patterns.

        Raises
        ------
        FormatError
            If the file cannot be read.
        ValueError
            If the tensor is not of plain floats.
        """
        kept = float_format(tensor)
        if kept is None:
            raise ValueError(f"{tensor.name} is of type {tensor.type.name}, not of plain floats")
        position = tensor.offset + start * kept.itemsize
        raw = self._file.read((stop - start) * kept.itemsize, position)
        return raw.view(kept.bits_dtype)

    def read_values(self, tensor: GgufTensor, start: int, stop: int) -> NDArray[np.float32]:
        """Read a range of a flattened tensor as numbers.

        Parameters
        ----------
        tensor : GgufTensor
            A tensor that `is_readable`.
        start, stop : int
            The range in elements; `stop` is not part of it.

        Returns
        -------
        float32 array, `[stop - start]`
            The numbers.

        Raises
        ------
        FormatError
            If the file cannot be read.
        NotImplementedError
            If the tensor is not readable.

        Notes
        -----
        Reads the blocks that the range touches and no others. While it computes it takes a few
        times the memory of what it returns.
        """
        kept = float_format(tensor)
        if kept is not None:
            return kept.upcast(self.read_bits(tensor, start, stop))
        block, block_bytes = GGML_QUANT_SIZES[tensor.type]
        first, last = start // block, -(-stop // block)
        position = tensor.offset + first * block_bytes
        raw = self._file.read((last - first) * block_bytes, position)
        # Block scales that are not finite give weights that are not; these are refused later.
        with np.errstate(over="ignore", invalid="ignore"):
            values: NDArray[np.float32] = dequantize(raw, tensor.type)
        return values[start - first * block : stop - first * block]


def float_format(tensor: GgufTensor) -> FloatFormat | None:
    """Return the format of a tensor of plain floats.

    Parameters
    ----------
    tensor : GgufTensor
        Any tensor.

    Returns
    -------
    FloatFormat or None
        None for a tensor of quantised blocks or integers.
    """
    return _FLOATS.get(tensor.type)


def is_readable(tensor: GgufTensor) -> bool:
    """Return whether a tensor can be read: plain floats, or blocks that the gguf package knows.

    Parameters
    ----------
    tensor : GgufTensor
        Any tensor.

    Returns
    -------
    bool
        Whether `read_values` can read it.
    """
    return float_format(tensor) is not None or _is_dequantizable(tensor.type)


@cache
def _is_dequantizable(kind: GGMLQuantizationType) -> bool:
    # The first call builds the tables that some types need, before threads use them.
    try:
        dequantize(np.zeros(GGML_QUANT_SIZES[kind][1], np.uint8), kind)
    except NotImplementedError:
        return False
    return True
