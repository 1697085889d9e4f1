"""How the tensors of transformers come out of a GGUF file: as they lie, moved, merged, computed.

Every reader gives elements start to stop of the flattened tensor as bit patterns of its format.
Blocks become BF16 here: dequantised in float32, rounded once, to nearest even.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.gguf.file import GgufFile, float_format
from isotone.checkpoint.gguf.header import GgufTensor
from isotone.core.float_format import Bits, FloatFormat

if TYPE_CHECKING:
    from transformers.modeling_gguf_pytorch_utils import TensorProcessor

_CHUNK = 1 << 15
"""Weights that are dequantised and rounded at a time: what a core's cache holds. Whole blocks."""
_PROBE = np.float32(-2)


class TensorReader(Protocol):
    """One tensor of transformers, to be read in pieces; safe from several threads."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As transformers has it."""
        ...

    @property
    def format(self) -> FloatFormat:
        """What `read` gives patterns of."""
        ...

    def read(self, file: GgufFile, start: int, stop: int) -> Bits:
        """Patterns of elements start to stop; raises FormatError where they cannot be read."""
        ...


def stored_format(tensor: GgufTensor) -> FloatFormat:
    """Name the format that a tensor gets: its own, or BF16 for blocks."""
    return float_format(tensor) or FloatFormat.BF16


def read_stored(file: GgufFile, tensor: GgufTensor, start: int, stop: int) -> Bits:
    """Read elements start to stop as they lie in the file, as patterns of `stored_format`."""
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
class StoredTensor:
    """A tensor as it lies in the file."""

    tensor: GgufTensor

    @property
    def shape(self) -> tuple[int, ...]:
        """As transformers has it."""
        return self.tensor.shape

    @property
    def format(self) -> FloatFormat:
        """What `read` gives patterns of."""
        return stored_format(self.tensor)

    def read(self, file: GgufFile, start: int, stop: int) -> Bits:
        """Read patterns of elements start to stop; raises FormatError where it cannot."""
        return read_stored(file, self.tensor, start, stop)


@dataclass(frozen=True)
class ReorderedRows:
    """A tensor whose row i is row order[i] of the file."""

    tensor: GgufTensor
    order: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        """As transformers has it."""
        return self.tensor.shape

    @property
    def format(self) -> FloatFormat:
        """What `read` gives patterns of."""
        return stored_format(self.tensor)

    def read(self, file: GgufFile, start: int, stop: int) -> Bits:
        """Read patterns of elements start to stop; raises FormatError where it cannot."""
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
class GateUp:
    """Two stacks `[experts, inner, hidden]` as one, `[experts, 2 * inner, hidden]`, gate first."""

    gate: GgufTensor
    up: GgufTensor

    @property
    def shape(self) -> tuple[int, ...]:
        """As transformers has it."""
        experts, inner, hidden = self.gate.shape
        return experts, 2 * inner, hidden

    @property
    def format(self) -> FloatFormat:
        """What `read` gives patterns of."""
        return stored_format(self.gate)

    def read(self, file: GgufFile, start: int, stop: int) -> Bits:
        """Read patterns of elements start to stop; raises FormatError where it cannot."""
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


@dataclass(frozen=True)
class ProcessedTensor:
    """A tensor that goes through transformers' processor, as a whole for every range.

    Patterns go through where values only move, so that they stay as they are; float32 values where
    the processor computes.
    """

    tensor: GgufTensor
    processor: TensorProcessor
    shape: tuple[int, ...]
    format: FloatFormat

    def read(self, file: GgufFile, start: int, stop: int) -> Bits:
        """Read patterns of elements start to stop; raises FormatError where it cannot."""
        n_weights = self.tensor.n_weights
        weights: NDArray[Any]
        if self.format is stored_format(self.tensor):
            weights = read_stored(file, self.tensor, 0, n_weights)
        else:
            weights = file.read_values(self.tensor, 0, n_weights)
        if self.format is FloatFormat.F32:
            weights = weights.view(np.float32)
        weights = weights.reshape(self.tensor.shape)
        result = self.processor.process(weights=weights, name=self.tensor.name).weights
        flat: Bits = np.ascontiguousarray(result).ravel()[start:stop]
        return flat.view(self.format.bits_dtype)


def reordered_rows(tensor: GgufTensor, processor: TensorProcessor) -> TensorReader:
    """Make the reader for a processor that moves rows at most: it is handed the row numbers."""
    rows = np.arange(tensor.shape[0]).reshape(-1, 1)
    order = processor.process(weights=rows, name=tensor.name).weights.ravel()
    return (
        StoredTensor(tensor) if np.array_equal(order, rows[:, 0]) else ReorderedRows(tensor, order)
    )


def processed_tensor(tensor: GgufTensor, processor: TensorProcessor) -> TensorReader:
    """Make the reader for any processor of one tensor: it is handed one that takes no memory."""
    probe = np.broadcast_to(_PROBE, tensor.shape)
    result = processor.process(weights=probe, name=tensor.name).weights
    if result is probe:
        return StoredTensor(tensor)
    is_moved = bool(np.all(result == _PROBE))
    kept = stored_format(tensor) if is_moved else FloatFormat.F32
    return ProcessedTensor(tensor, processor, result.shape, kept)
