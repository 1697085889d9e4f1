"""Tensors that go through transformers' processors; each is probed once to learn what it does.

A processor undoes what the conversion of a model to GGUF did to some of its tensors. It is tried on
row numbers, or on a tensor that takes no memory, to learn whether it moves values or computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.gguf.file import GgufFile
from isotone.checkpoint.gguf.header import GgufTensor
from isotone.core.float_format import Bits, FloatFormat
from isotone.models.gguf.tensors import (
    ReorderedRows,
    StoredTensor,
    TensorReader,
    read_stored,
    stored_format,
)

if TYPE_CHECKING:
    from transformers.modeling_gguf_pytorch_utils import TensorProcessor

_PROBE = np.float32(-2)


@dataclass(frozen=True)
class ProcessedTensor(TensorReader):
    """A tensor that goes through transformers' processor, as a whole for every range.

    Where values only move, bit patterns go through the processor, so that they stay as they are;
    where it computes, float32 values do.

    Attributes
    ----------
    tensor : GgufTensor
        The tensor of the file.
    processor : TensorProcessor
        Undoes what the conversion to GGUF did to the tensor.
    result_shape : tuple of int
        The shape that transformers gives the tensor.
    result_format : FloatFormat
        The float format of the patterns that `read` returns.
    """

    tensor: GgufTensor
    processor: TensorProcessor
    result_shape: tuple[int, ...]
    result_format: FloatFormat

    @property
    def shape(self) -> tuple[int, ...]:
        return self.result_shape

    @property
    def format(self) -> FloatFormat:
        return self.result_format

    def read(self, file: GgufFile, start: int, stop: int) -> Bits:
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
    """Make the reader for a processor that moves rows at most: it is tried on the row numbers.

    Parameters
    ----------
    tensor : GgufTensor
        The tensor of the file.
    processor : TensorProcessor
        The processor of its architecture.

    Returns
    -------
    TensorReader
        The reader.
    """
    rows = np.arange(tensor.shape[0]).reshape(-1, 1)
    order = processor.process(weights=rows, name=tensor.name).weights.ravel()
    return (
        StoredTensor(tensor) if np.array_equal(order, rows[:, 0]) else ReorderedRows(tensor, order)
    )


def processed_tensor(tensor: GgufTensor, processor: TensorProcessor) -> TensorReader:
    """Make the reader for any processor of one tensor: it is tried on one that takes no memory.

    Parameters
    ----------
    tensor : GgufTensor
        The tensor of the file.
    processor : TensorProcessor
        The processor of its architecture.

    Returns
    -------
    TensorReader
        The reader.
    """
    probe = np.broadcast_to(_PROBE, tensor.shape)
    result = processor.process(weights=probe, name=tensor.name).weights
    if result is probe:
        return StoredTensor(tensor)
    is_moved = bool(np.all(result == _PROBE))
    kept = stored_format(tensor) if is_moved else FloatFormat.F32
    return ProcessedTensor(tensor, processor, result.shape, kept)
