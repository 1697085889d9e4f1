"""How the tensors of transformers come out of a GGUF file: unchanged, reordered or merged.

Every reader returns a range of the flattened tensor as bit patterns of its float format. Quantised
blocks become BF16: dequantised in float32, then rounded once, to nearest even.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.gguf.file import GgufFile, float_format
from isotone.checkpoint.gguf.header import GgufTensor
from isotone.core.float_format import Bits, FloatFormat

_CHUNK = 1 << 15
"""The number of weights to dequantise and round at a time: a core's cache holds them. It is a whole
number of blocks."""


class TensorReader(Protocol):
    """Reads one tensor of transformers in pieces; safe to use from several threads."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that transformers gives the tensor."""
        ...

    @property
    def format(self) -> FloatFormat:
        """The float format of the patterns that `read` returns."""
        ...

    def read(self, file: GgufFile, start: int, stop: int) -> Bits:
        """Read a range of the flattened tensor.

        Parameters
        ----------
        file : GgufFile
            The open file.
        start, stop : int
            The range in elements; `stop` is not part of it.

        Returns
        -------
        uint16 or uint32 array, `[stop - start]`
            The elements as bit patterns of `format`.

        Raises
        ------
        FormatError
            If the file cannot be read, or ends before.
        """
        ...


def stored_format(tensor: GgufTensor) -> FloatFormat:
    """Return the float format that a tensor gets: its own, or BF16 for quantised blocks.

    Parameters
    ----------
    tensor : GgufTensor
        A tensor of the file.

    Returns
    -------
    FloatFormat
        The format.
    """
    return float_format(tensor) or FloatFormat.BF16


def read_stored(file: GgufFile, tensor: GgufTensor, start: int, stop: int) -> Bits:
    """Read a range of a flattened tensor in the order of the file.

    Parameters
    ----------
    file : GgufFile
        The open file.
    tensor : GgufTensor
        One of its tensors.
    start, stop : int
        The range in elements; `stop` is not part of it.

    Returns
    -------
    uint16 or uint32 array, `[stop - start]`
        The elements as bit patterns of `stored_format(tensor)`.

    Raises
    ------
    FormatError
        If the file cannot be read, or ends before.
    """
    if float_format(tensor) is not None:
        return file.read_bits(tensor, start, stop)
    out = np.empty(stop - start, FloatFormat.BF16.bits_dtype)
    begin = start
    while begin < stop:
        end = min((begin // _CHUNK + 1) * _CHUNK, stop)
        values = file.read_values(tensor, begin, end)
        out[begin - start : end - start] = FloatFormat.BF16.downcast(values)
        begin = end
    return out


@dataclass(frozen=True)
class StoredTensor(TensorReader):
    """A tensor that is the same in the file.

    Attributes
    ----------
    tensor : GgufTensor
        The tensor of the file.
    """

    tensor: GgufTensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def format(self) -> FloatFormat:
        return stored_format(self.tensor)

    def read(self, file: GgufFile, start: int, stop: int) -> Bits:
        return read_stored(file, self.tensor, start, stop)


@dataclass(frozen=True)
class ReorderedRows(TensorReader):
    """A tensor whose row i is row `order[i]` of the file.

    Attributes
    ----------
    tensor : GgufTensor
        The tensor of the file.
    order : int64 array, `[rows]`
        The row of the file for each row.
    """

    tensor: GgufTensor
    order: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def format(self) -> FloatFormat:
        return stored_format(self.tensor)

    def read(self, file: GgufFile, start: int, stop: int) -> Bits:
        if start >= stop:
            return read_stored(file, self.tensor, start, start)
        length = math.prod(self.shape[1:])
        first, last = start // length, -(-stop // length)
        wanted = self.order[first:last]
        lowest, highest = int(wanted.min()), int(wanted.max())
        # Rows move within their attention head only, so what is read is little more than wanted.
        rows = read_stored(file, self.tensor, lowest * length, (highest + 1) * length)
        picked: Bits = rows.reshape(-1, length)[wanted - lowest].ravel()
        return picked[start - first * length : stop - first * length]


@dataclass(frozen=True)
class GateUp(TensorReader):
    """Two stacks `[experts, inner, hidden]` as one, `[experts, 2 * inner, hidden]`, gate first.

    Attributes
    ----------
    gate : GgufTensor
        The gate projections of all experts.
    up : GgufTensor
        Their up projections, in the same shape and format.
    """

    gate: GgufTensor
    up: GgufTensor

    @property
    def shape(self) -> tuple[int, ...]:
        experts, inner, hidden = self.gate.shape
        return experts, 2 * inner, hidden

    @property
    def format(self) -> FloatFormat:
        return stored_format(self.gate)

    def read(self, file: GgufFile, start: int, stop: int) -> Bits:
        half = math.prod(self.gate.shape[1:])
        out = np.empty(stop - start, self.format.bits_dtype)
        begin = start
        while begin < stop:
            n_before = begin // half
            end = min((n_before + 1) * half, stop)
            # In its own stack, this half follows only those halves that are of its kind.
            shift = (n_before - n_before // 2) * half
            part = (self.gate, self.up)[n_before % 2]
            out[begin - start : end - start] = read_stored(file, part, begin - shift, end - shift)
            begin = end
        return out
