"""A compressed directory as the dense state dict that transformers would have read.

transformers loads a checkpoint by name: it renames, merges the experts of a layer into one tensor,
ties, casts and places. All of that is right for a clustered model too, once each name leads to the
dense tensor. So the loader is given names and CheckpointTensors, which behave like the slices of
safetensors that it expects; each decodes when the loader's own threads ask for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from isotone.checkpoint.compressed.decode import decode_into, decode_pieces
from isotone.checkpoint.compressed.manifest import ClusteredRecord, Record
from isotone.checkpoint.compressed.reader import CompressedDirectory

TORCH_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
    "C64": torch.complex64,
}
"""The dtypes of torch by the names that safetensors gives them."""

Decode = Callable[[CompressedDirectory, Record, torch.dtype | None], torch.Tensor]
"""Makes the tensor of a record, in the stored dtype or in another one."""


class CheckpointTensor:
    """One dense tensor of a directory, decoded when it is indexed; safe to use in threads.

    It has what transformers asks of a slice of safetensors: `get_shape`, `get_dtype` and indexing.
    Indexing decodes the whole tensor and then takes the part. It decodes to `wanted`, the dtype in
    which the loader will ask for it, so that nothing of that size is made twice.

    Parameters
    ----------
    directory : CompressedDirectory
        The open directory.
    record : Record
        The tensor's record in its manifest.
    decode : function
        Makes the tensor.
    """

    def __init__(self, directory: CompressedDirectory, record: Record, decode: Decode) -> None:
        self.record, self.was_read = record, False
        self.wanted: torch.dtype | None = None
        self._directory, self._decode = directory, decode

    @property
    def shape(self) -> torch.Size:
        """The shape of the dense tensor."""
        return torch.Size(self.record.shape)

    @property
    def dtype(self) -> torch.dtype:
        """The stored dtype."""
        return TORCH_DTYPES[self.record.dtype]

    def get_shape(self) -> list[int]:
        """Return the shape of the dense tensor, as safetensors does."""
        return list(self.record.shape)

    def get_dtype(self) -> str:
        """Return the name of the stored dtype, as safetensors does."""
        return self.record.dtype

    def __getitem__(self, index: Any) -> torch.Tensor:
        """Decode, and take a part (`...` for all); raises FormatError if bytes are damaged."""
        self.was_read = True
        tensor = self._decode(self._directory, self.record, self.wanted)
        return tensor if index is ... else tensor[index]


def checkpoint_tensors(
    directory: CompressedDirectory, decode_clustered: Decode, tied: Mapping[str, str]
) -> dict[str, CheckpointTensor]:
    """Return every tensor of the dense model by name, those that repeat another one among them.

    Parameters
    ----------
    directory : CompressedDirectory
        The open directory.
    decode_clustered : function
        Makes the tensor of a clustered record; other tensors are read as they are.
    tied : mapping of str to str
        For each name that the model ties to another one by itself, the name of the other. A name is
        left out, so that nothing is decoded twice, if that other one is of the same stored tensor.

    Returns
    -------
    dict of str to CheckpointTensor
        The tensors, none of them decoded yet.
    """
    found, copies = {}, directory.manifest.copies
    for record in directory.manifest.stored:
        decode = decode_clustered if isinstance(record, ClusteredRecord) else dense_tensor
        names = [record.name, *(copy.name for copy in copies.get(record.name, ()))]
        given = {name for name in names if name not in tied}
        for name in names:
            if name in given or tied[name] not in given:
                found[name] = CheckpointTensor(directory, record, decode)
    return found


def dense_tensor(
    directory: CompressedDirectory, record: Record, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Decode a tensor to dense weights.

    Parameters
    ----------
    directory : CompressedDirectory
        The open directory.
    record : Record
        The tensor's record in its manifest.
    dtype : torch.dtype, optional
        The dtype to cast to; the stored one by default.

    Returns
    -------
    torch.Tensor
        The dense tensor on the CPU.

    Raises
    ------
    FormatError
        If the stored arrays are damaged.

    Notes
    -----
    The cost is one pass over the weights; beside the tensor, only one chunk is in memory.
    """
    stored = TORCH_DTYPES[record.dtype]
    if math.prod(record.shape) == 0 or dtype in (None, stored):
        return _whole(directory, record)
    out = torch.empty(math.prod(record.shape), dtype=dtype)
    for start, piece in decode_pieces(directory, record):
        values = torch.from_numpy(piece).view(stored)
        out[start : start + len(values)] = values
    return out.reshape(record.shape)


def _whole(directory: CompressedDirectory, record: Record) -> torch.Tensor:
    stored = TORCH_DTYPES[record.dtype]
    if math.prod(record.shape) == 0:
        return torch.empty(record.shape, dtype=stored)
    buffer = torch.empty(record.dense_bytes, dtype=torch.uint8)
    decode_into(directory, record, buffer.numpy())
    return buffer.view(stored).reshape(record.shape)
