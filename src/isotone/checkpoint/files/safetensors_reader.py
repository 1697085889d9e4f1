"""Reads one safetensors file: its header is checked against the file, its tensors in pieces.

A header can claim what is not true (sizes that do not fit, overlaps, a name given twice), so
nothing is allocated before the header has been checked against the size of the file.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.files.lfs import POINTER, refuse_pointer
from isotone.checkpoint.files.local_file import PositionedFile
from isotone.checkpoint.files.location import is_remote
from isotone.checkpoint.files.remote_file import RemoteFile
from isotone.checkpoint.files.tensor_info import DTYPE_BYTES, TensorInfo
from isotone.errors import FormatError

MAX_HEADER_BYTES = 100_000_000
"""The limit of the format's own library."""


@dataclass(frozen=True)
class SafetensorsFile:
    """An open file; safe to read from several threads, and it pickles.

    Attributes
    ----------
    path : Path
        The file.
    tensors : tuple of TensorInfo
        Its tensors, in the order of their bytes.
    offsets : dict of str to int
        The position of each tensor's first byte in the file.
    metadata : dict of str to str
        The header's `__metadata__`.
    n_bytes : int
        The size of the file in bytes.
    """

    path: Path
    tensors: tuple[TensorInfo, ...]
    offsets: dict[str, int]
    metadata: dict[str, str]
    n_bytes: int
    _file: PositionedFile | RemoteFile

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file and check its header.

        Parameters
        ----------
        path : Path
            A file of this machine or in a store.

        Returns
        -------
        SafetensorsFile
            The open file.

        Raises
        ------
        FormatError
            If the file cannot be read, is no safetensors file, or is damaged.
        """
        file = RemoteFile(path) if is_remote(path) else PositionedFile(path)
        size = file.n_bytes
        header, data_start = _read_header(file, path)
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict):
            raise FormatError(f"{path}: its metadata is not a table")
        parsed = [_parse(path, name, entry) for name, entry in header.items()]
        entries = sorted(parsed, key=lambda entry: entry[:2])
        end = 0
        for begin, stop, tensor in entries:
            if begin != end or stop - begin != tensor.n_bytes:
                raise FormatError(
                    f"{path}: {tensor.name} takes bytes {begin} to {stop}; expected "
                    f"{tensor.n_bytes} bytes from {end}; the file is damaged, fetch it again"
                )
            end = stop
        if data_start + end != size:
            raise FormatError(
                f"{path}: is {size} bytes long, its header promises {data_start + end}; "
                "the file is truncated or damaged, fetch it again"
            )
        return cls(
            path=path,
            tensors=tuple(tensor for _, _, tensor in entries),
            offsets={tensor.name: data_start + begin for begin, _, tensor in entries},
            metadata=metadata,
            n_bytes=size,
            _file=file,
        )

    def read(self, tensor: TensorInfo, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the bytes of a range of a flattened tensor.

        Parameters
        ----------
        tensor : TensorInfo
            One of `tensors`.
        start, stop : int
            The range in elements; `stop` is not part of it.

        Returns
        -------
        uint8 array, `[(stop - start) * itemsize]`
            The little-endian bytes.

        Raises
        ------
        FormatError
            If the file was truncated meanwhile.
        """
        return self._file.read(*self._place(tensor, start, stop))

    def forget(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Drop a range from the page cache, because it will not be read again.

        Parameters
        ----------
        tensor : TensorInfo
            One of `tensors`.
        start, stop : int
            The range in elements.
        """
        self._file.forget(*self._place(tensor, start, stop))

    def _place(self, tensor: TensorInfo, start: int, stop: int) -> tuple[int, int]:
        itemsize = DTYPE_BYTES[tensor.dtype]
        return (stop - start) * itemsize, self.offsets[tensor.name] + start * itemsize


def _read_header(file: PositionedFile | RemoteFile, path: Path) -> tuple[dict[str, Any], int]:
    size = file.n_bytes
    if size < 8:
        raise FormatError(f"{path}: is {size} bytes long; too short for a safetensors file")
    refuse_pointer(path, file.read(min(size, len(POINTER)), 0).tobytes())
    length = int.from_bytes(file.read(8, 0).tobytes(), "little")
    if length > min(size - 8, MAX_HEADER_BYTES):
        raise FormatError(
            f"{path}: claims a header of {length} bytes in a file of {size}; "
            "not a safetensors file, or damaged"
        )
    try:
        text = file.read(length, 8).tobytes().decode("utf-8")
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: its header is not valid JSON: {error}") from error
    if not isinstance(header, dict):
        raise FormatError(f"{path}: its header is not a table of tensors")
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name is given twice")
    for name in table:
        name.encode()  # refuses half a surrogate pair, which JSON can escape and UTF-8 cannot hold
    return table


def _parse(path: Path, name: str, entry: object) -> tuple[int, int, TensorInfo]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{path}: the header's entry for {name} is malformed")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise FormatError(
            f"{path}: {name} has dtype {dtype!r}; expected one of {', '.join(DTYPE_BYTES)}"
        )
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise FormatError(f"{path}: the header's entry for {name} is malformed")
    if math.prod(max(axis, 1) for axis in shape) > 1 << 60:
        raise FormatError(f"{path}: {name} claims a shape of {shape}")
    return offsets[0], offsets[1], TensorInfo(name, dtype, tuple(shape))


def _naturals(values: object) -> bool:
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)
