"""One GGUF file: its header checked against the file, its tensors read in pieces.

A GGUF file is a table of metadata, a table of tensors and their data
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). The `gguf` package has a reader; isotone
walks the header itself, because that reader believes what it reads: a length or an offset that points
past the end gives it a short array or a traceback, and an array that claims a billion elements gets a
billion Python objects. Here every claim is held against the size of the file before it is used, so
that a file that opens can be given to transformers too. What the numbers in a block mean is left to
`gguf.quants`.

As in safetensors_file, reading happens by position and without a mapping, so that threads can share
the file and its pages do not count as ours.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from isotone.checkpoint.safetensors_file import _Descriptor
from isotone.core.float_format import Bits, FloatFormat
from isotone.errors import FormatError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 8
MAX_STRING_BYTES = 1 << 24
"""Longer than any chat template; shorter than what would hurt."""
MAX_ARRAY_ELEMENTS = 1 << 22
"""Of all arrays together: four times the largest vocabulary with its scores, types and merges."""

_CHUNK_BYTES = 1 << 20
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING, _ARRAY = 8, 9
_FORMATS = {
    GGMLQuantizationType.F32: FloatFormat.F32,
    GGMLQuantizationType.F16: FloatFormat.F16,
    GGMLQuantizationType.BF16: FloatFormat.BF16,
}


@dataclass(frozen=True)
class GgufTensor:
    """A tensor's name, ggml type, shape (slowest dimension first) and position in the file."""

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int

    @property
    def n_weights(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """Bytes in the file."""
        block, block_bytes = GGML_QUANT_SIZES[self.type]
        return self.n_weights // block * block_bytes

    @property
    def float_format(self) -> FloatFormat | None:
        """The format of a tensor of plain floats; None for blocks and for integers."""
        return _FORMATS.get(self.type)

    @property
    def is_readable(self) -> bool:
        """Whether its values can be had: plain floats, or blocks that the gguf package knows."""
        return self.float_format is not None or _is_dequantizable(self.type)


@dataclass(frozen=True)
class GgufFile:
    """An open file. `metadata` holds the scalars and strings; arrays are checked and left out."""

    path: Path
    metadata: dict[str, Any]
    tensors: tuple[GgufTensor, ...]
    n_bytes: int
    _descriptor: _Descriptor

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file and check its header; raises FormatError, naming the file."""
        try:
            descriptor = _Descriptor(path)
        except OSError as error:
            raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
        header = _Header(descriptor, os.fstat(descriptor.number).st_size)
        n_tensors, n_entries = header.start()
        metadata = header.metadata(n_entries)
        tensors = header.tensors(n_tensors, metadata)
        return cls(path, metadata, tensors, header.size, descriptor)

    @property
    def architecture(self) -> str:
        """What kind of model it says it is; raises FormatError where it does not say."""
        architecture = self.metadata.get("general.architecture")
        if not isinstance(architecture, str) or not architecture:
            raise FormatError(f"{self.path}: does not say its general.architecture")
        return architecture

    def read_bits(self, tensor: GgufTensor, start: int, stop: int) -> Bits:
        """Elements start to stop of a flattened tensor of plain floats, as patterns.

        Raises FormatError where they cannot be read, ValueError where the tensor is not of floats.
        """
        if tensor.float_format is None:
            raise ValueError(f"{tensor.name} is of type {tensor.type.name}, not of plain floats")
        itemsize = tensor.float_format.itemsize
        position = tensor.offset + start * itemsize
        raw = self._descriptor.read((stop - start) * itemsize, position)
        return raw.view(tensor.float_format.bits_dtype)

    def read_values(self, tensor: GgufTensor, start: int, stop: int) -> NDArray[np.float32]:
        """Elements start to stop of a flattened tensor, dequantised.

        Reads the blocks that the range touches and no others; takes a few times the range's float32
        bytes of memory while it computes. Raises FormatError where they cannot be read,
        NotImplementedError where `is_readable` is False.
        """
        if tensor.float_format is not None:
            return tensor.float_format.widen(self.read_bits(tensor, start, stop))
        block, block_bytes = GGML_QUANT_SIZES[tensor.type]
        first, last = start // block, -(-stop // block)
        position = tensor.offset + first * block_bytes
        raw = self._descriptor.read((last - first) * block_bytes, position)
        values: NDArray[np.float32] = dequantize(raw, tensor.type)
        return values[start - first * block : stop - first * block]


@cache
def _is_dequantizable(kind: GGMLQuantizationType) -> bool:
    # Asking builds the tables that some types need, so that threads find them built.
    try:
        dequantize(np.zeros(GGML_QUANT_SIZES[kind][1], np.uint8), kind)
    except NotImplementedError:
        return False
    return True


class _Header:
    """A cursor over the header that never reads past the end of the file."""

    def __init__(self, descriptor: _Descriptor, size: int) -> None:
        self.descriptor = descriptor
        self.path = descriptor.path
        self.size = size
        self.position = 0
        self.n_elements = 0
        self._buffer = b""
        self._buffer_start = 0

    def start(self) -> tuple[int, int]:
        """The numbers of tensors and of metadata entries."""
        if self.size < 24 or self._take(4) != MAGIC:
            raise FormatError(f"{self.path}: is not a GGUF file: it does not start with 'GGUF'")
        version = self._number("<I")
        if version & 0xFFFF == 0:
            raise FormatError(f"{self.path}: is a big-endian GGUF file; expected little-endian")
        if version not in VERSIONS:
            raise FormatError(f"{self.path}: is GGUF version {version}; expected 2 or 3")
        return self._number("<Q"), self._number("<Q")

    def metadata(self, n_entries: int) -> dict[str, Any]:
        """Scalars and strings by key."""
        keys: set[str] = set()
        metadata: dict[str, Any] = {}
        for _ in range(n_entries):
            key = self._string()
            if key in keys:
                raise FormatError(f"{self.path}: its metadata has two entries {key!r}")
            keys.add(key)
            kind = self._number("<I")
            if kind == _ARRAY:
                self._skip_array(key)
            elif kind == _STRING:
                metadata[key] = self._string()
            else:
                metadata[key] = self._scalar(kind, key)
        return metadata

    def tensors(self, n_tensors: int, metadata: dict[str, Any]) -> tuple[GgufTensor, ...]:
        """The tensors, in the order of their data, every one inside of the file."""
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
            raise FormatError(f"{self.path}: aligns to {alignment!r}; expected a power of two")
        entries = [self._tensor() for _ in range(n_tensors)]
        if len({name for name, _, _, _ in entries}) != n_tensors:
            raise FormatError(f"{self.path}: names a tensor twice")
        data_start = -(-self.position // alignment) * alignment
        tensors = [
            GgufTensor(name, kind, shape, data_start + offset)
            for name, kind, shape, offset in sorted(entries, key=lambda entry: entry[3])
        ]
        end = data_start
        for tensor in tensors:
            if tensor.offset < end or tensor.offset + tensor.n_bytes > self.size:
                raise FormatError(
                    f"{self.path}: {tensor.name} takes {tensor.n_bytes} bytes at {tensor.offset} of "
                    f"{self.size}, of which {end} are taken; the file is truncated or damaged, "
                    "fetch it again"
                )
            end = tensor.offset + tensor.n_bytes
        return tuple(tensors)

    def _tensor(self) -> tuple[str, GGMLQuantizationType, tuple[int, ...], int]:
        name = self._string()
        n_dimensions = self._number("<I")
        if n_dimensions > MAX_DIMENSIONS:
            raise FormatError(f"{self.path}: {name} claims {n_dimensions} dimensions")
        shape = tuple(self._number("<Q") for _ in range(n_dimensions))[::-1]
        number, offset = self._number("<I"), self._number("<Q")
        try:
            kind = GGMLQuantizationType(number)
        except ValueError:
            raise FormatError(
                f"{self.path}: {name} is of type number {number}, which the installed gguf package "
                "does not know; a newer one might"
            ) from None
        block, _ = GGML_QUANT_SIZES[kind]
        if math.prod(shape) > 1 << 60 or (shape[-1] if shape else 1) % block:
            raise FormatError(
                f"{self.path}: {name} claims a shape of {list(shape)} in blocks of {block}"
            )
        return name, kind, shape, offset

    def _scalar(self, kind: int, key: str) -> Any:  # noqa: ANN401
        if kind not in _SCALARS:
            raise FormatError(f"{self.path}: its metadata {key!r} is of unknown type {kind}")
        return self._number(_SCALARS[kind].format)

    def _skip_array(self, key: str) -> None:
        kind, n_elements = self._number("<I"), self._number("<Q")
        self.n_elements += n_elements
        if self.n_elements > MAX_ARRAY_ELEMENTS:
            raise FormatError(
                f"{self.path}: its metadata {key!r} claims {n_elements} elements; expected at most "
                f"{MAX_ARRAY_ELEMENTS} in all"
            )
        if kind == _STRING:
            for _ in range(n_elements):
                self._skip(self._length())
        elif kind in _SCALARS:
            self._skip(n_elements * _SCALARS[kind].size)
        else:
            raise FormatError(f"{self.path}: its metadata {key!r} is an array of type {kind}")

    def _string(self) -> str:
        raw = self._take(self._length())
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise FormatError(f"{self.path}: its header holds invalid UTF-8") from error

    def _length(self) -> int:
        length = self._number("<Q")
        if length > MAX_STRING_BYTES:
            raise FormatError(f"{self.path}: its header claims a string of {length} bytes")
        return length

    def _number(self, layout: str) -> Any:  # noqa: ANN401
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _take(self, n_bytes: int) -> bytes:
        begin = self.position - self._buffer_start
        if not 0 <= begin <= len(self._buffer) - n_bytes:
            left = max(self.size - self.position, 0)
            self._check_left(n_bytes)
            n_read = min(max(n_bytes, _CHUNK_BYTES), left)
            self._buffer = self.descriptor.read(n_read, self.position).tobytes()
            self._buffer_start, begin = self.position, 0
        self.position += n_bytes
        return self._buffer[begin : begin + n_bytes]

    def _skip(self, n_bytes: int) -> None:
        self._check_left(n_bytes)
        self.position += n_bytes

    def _check_left(self, n_bytes: int) -> None:
        if n_bytes > self.size - self.position:
            raise FormatError(
                f"{self.path}: ends inside of its header; the file is truncated or damaged, "
                "fetch it again"
            )
