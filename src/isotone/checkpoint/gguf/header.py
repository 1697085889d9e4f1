"""Reads the header of a GGUF file, and checks its claims against the size of the file.

A GGUF file is a table of metadata, a table of tensors, and their data
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). The `gguf` package has a reader, but it
trusts the file: a length or an offset past the end gives a short array or a traceback, and an array
that claims a billion elements becomes a billion Python objects. So isotone reads the header itself
and checks every claim before it uses it. A file that passes can be given to transformers too, which
uses that reader.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from isotone.checkpoint.files.lfs import POINTER, refuse_pointer
from isotone.errors import FormatError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_HEADER_BYTES = 1 << 28
MAX_TENSORS = 1 << 20
MAX_DIMENSIONS = 8
MAX_STRING_BYTES = 1 << 24
MAX_ARRAY_ELEMENTS = 1 << 21
"""The limit for all arrays together. Large vocabularies (tokens, scores, types, merges) have 1.3
million elements."""

_CHUNK_BYTES = 1 << 20
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9

Metadata = dict[str, "int | float | str"]


@dataclass(frozen=True)
class GgufTensor:
    """What the header says of one tensor.

    Attributes
    ----------
    name : str
        The tensor's name in GGUF's own scheme.
    type : GGMLQuantizationType
        How its elements are stored.
    shape : tuple of int
        The length of each axis, the slowest first (GGUF writes the fastest first).
    offset : int
        The position of its first byte in the file.
    """

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int

    @property
    def n_weights(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """The bytes that it takes in the file."""
        block, block_bytes = GGML_QUANT_SIZES[self.type]
        return self.n_weights // int(block) * int(block_bytes)


def read_header(
    path: Path, size: int, read: Callable[[int, int], bytes]
) -> tuple[Metadata, tuple[GgufTensor, ...]]:
    """Read the header of a GGUF file.

    Parameters
    ----------
    path : Path
        The file, for messages.
    size : int
        Its size in bytes.
    read : callable
        `read(n_bytes, position)` returns bytes of the file; it is called for nothing outside of it.

    Returns
    -------
    metadata : dict of str to int, float or str
        The scalars and strings. Arrays (mostly vocabularies) are checked and left out.
    tensors : tuple of GgufTensor
        The tensors, in the order of their data.

    Raises
    ------
    FormatError
        If the file is no GGUF file of version 2 or 3, or is damaged; the message names `path`.
    """
    refuse_pointer(path, read(min(size, len(POINTER)), 0))
    cursor = _Cursor(path, size, read)
    if size < 24 or cursor.take(4) != MAGIC:
        raise FormatError(f"{path}: is not a GGUF file: it does not start with 'GGUF'")
    version = cursor.number("I")
    if version & 0xFFFF == 0:
        raise FormatError(f"{path}: is a big-endian GGUF file; expected a little-endian one")
    if version not in VERSIONS:
        raise FormatError(f"{path}: is a GGUF file of version {version}; expected 2 or 3")
    n_tensors, n_entries = cursor.number("Q"), cursor.number("Q")
    if n_tensors > MAX_TENSORS:
        raise FormatError(f"{path}: claims {n_tensors} tensors; expected at most {MAX_TENSORS}")
    metadata = _read_metadata(cursor, n_entries)
    entries = [_read_tensor(cursor) for _ in range(n_tensors)]
    return metadata, _placed(cursor, metadata, entries)


class _Cursor:
    """A position in the header, which cannot leave the file."""

    def __init__(self, path: Path, size: int, read: Callable[[int, int], bytes]) -> None:
        self.path = path
        self.size = size
        self.position = 0
        self._read = read
        self._buffer = b""
        self._buffer_start = 0

    def take(self, n_bytes: int) -> bytes:
        begin = self.position - self._buffer_start
        self.skip(n_bytes)
        if begin + n_bytes > len(self._buffer):
            self._buffer_start = self.position - n_bytes
            n_read = min(max(n_bytes, _CHUNK_BYTES), self.size - self._buffer_start)
            self._buffer = self._read(n_read, self._buffer_start)
            begin = 0
        return self._buffer[begin : begin + n_bytes]

    def skip(self, n_bytes: int) -> None:
        end = self.position + n_bytes
        if end > self.size:
            raise FormatError(
                f"{self.path}: its header runs past the end, byte {self.size}; the file is "
                "truncated or damaged, fetch it again"
            )
        if end > MAX_HEADER_BYTES:
            raise FormatError(f"{self.path}: its header is longer than {MAX_HEADER_BYTES} bytes")
        self.position = end

    def number(self, code: str) -> Any:  # noqa: ANN401  int, float or bool, as the code says
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def length(self) -> int:
        length: int = self.number("Q")
        if length > MAX_STRING_BYTES:
            raise FormatError(
                f"{self.path}: its header claims a string of {length} bytes; expected at most "
                f"{MAX_STRING_BYTES}"
            )
        return length

    def string(self) -> str:
        try:
            return self.take(self.length()).decode("utf-8")
        except UnicodeDecodeError as error:
            raise FormatError(f"{self.path}: its header holds a name that is not UTF-8") from error


def _read_metadata(cursor: _Cursor, n_entries: int) -> Metadata:
    metadata: Metadata = {}
    keys: set[str] = set()
    n_elements = 0
    for _ in range(n_entries):
        key = cursor.string()
        if key in keys:
            raise FormatError(f"{cursor.path}: its metadata has {key!r} twice")
        keys.add(key)
        kind = cursor.number("I")
        if kind == _ARRAY:
            n_elements += _skip_array(cursor, key, MAX_ARRAY_ELEMENTS - n_elements)
        elif kind == _STRING:
            metadata[key] = cursor.string()
        elif kind in _SCALARS:
            metadata[key] = cursor.number(_SCALARS[kind])
        else:
            raise FormatError(f"{cursor.path}: its metadata {key!r} is of unknown type {kind}")
    return metadata


def _skip_array(cursor: _Cursor, key: str, n_allowed: int) -> int:
    kind, n_elements = cursor.number("I"), cursor.number("Q")
    if n_elements > n_allowed:
        raise FormatError(
            f"{cursor.path}: its metadata {key!r} claims an array of {n_elements} elements; "
            f"expected at most {MAX_ARRAY_ELEMENTS} in all arrays"
        )
    if kind == _STRING:
        for _ in range(n_elements):
            cursor.skip(cursor.length())
    elif kind in _SCALARS:
        cursor.skip(n_elements * struct.calcsize(f"<{_SCALARS[kind]}"))
    else:
        raise FormatError(f"{cursor.path}: its metadata {key!r} is an array of type {kind}")
    return int(n_elements)


def _read_tensor(cursor: _Cursor) -> GgufTensor:
    """Read the entry of one tensor; its offset is relative to the start of the data."""
    name = cursor.string()
    n_dimensions = cursor.number("I")
    if n_dimensions > MAX_DIMENSIONS:
        raise FormatError(f"{cursor.path}: {name} claims {n_dimensions} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(n_dimensions))[::-1]
    number, offset = cursor.number("I"), cursor.number("Q")
    try:
        kind = GGMLQuantizationType(number)
    except ValueError:
        raise FormatError(
            f"{cursor.path}: {name} is of ggml type {number}, which the installed gguf package "
            "does not know; a newer one might"
        ) from None
    block, _ = GGML_QUANT_SIZES[kind]
    if math.prod(shape) > 1 << 60 or (shape[-1] if shape else 1) % block:
        raise FormatError(
            f"{cursor.path}: {name} claims shape {list(shape)}, which blocks of {block} cannot make"
        )
    return GgufTensor(name, kind, shape, offset)


def _placed(
    cursor: _Cursor, metadata: Metadata, entries: list[GgufTensor]
) -> tuple[GgufTensor, ...]:
    """Make offsets relative to the start of the file; refuse those that do not fit in it."""
    path, size = cursor.path, cursor.size
    if len({entry.name for entry in entries}) != len(entries):
        raise FormatError(f"{path}: its header names a tensor twice")
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
        raise FormatError(f"{path}: aligns data to {alignment!r}; expected a power of two")
    end = start = -(-cursor.position // alignment) * alignment
    placed = []
    for entry in sorted(entries, key=lambda entry: entry.offset):
        tensor = GgufTensor(entry.name, entry.type, entry.shape, start + entry.offset)
        if tensor.offset < end or tensor.offset + tensor.n_bytes > size:
            raise FormatError(
                f"{path}: {tensor.name} takes bytes {tensor.offset} to "
                f"{tensor.offset + tensor.n_bytes}; expected them between {end} and the end, "
                f"{size}; the file is truncated or damaged, fetch it again"
            )
        end = tensor.offset + tensor.n_bytes
        placed.append(tensor)
    return tuple(placed)
