"""Writes safetensors files: in one pass before all sizes are known, or in any order after.

`ShardWriter` streams: the header comes first in the file and is known last, so room is left for it,
and what is not needed is filled with spaces, as the format allows. `DenseShard` knows every tensor
beforehand, and takes their bytes in any order. Tensors follow each other without gaps; in
`storage_order` each array is aligned to its dtype.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.files.tensor_info import DTYPE_BYTES, TensorInfo
from isotone.codec.packed import ALIGNMENT as PACKED_ALIGNMENT

_DATA_ALIGNMENT = 64
_LARGEST_OFFSET = 10**15


def storage_order(dtype: str, *, packed: bool = False) -> float:
    """Return the sort key of the order in which arrays lie in a shard.

    Arrays with elements of 8 bytes come first, then packed ranks (whose length is a multiple of 8
    bytes), then elements of 4, 2 and 1 bytes. Arrays of equal keys keep the order that the caller
    gives them.

    Parameters
    ----------
    dtype : str
        The array's dtype, a tag of safetensors.
    packed : bool
        Whether the array holds packed ranks.

    Returns
    -------
    float
        Smaller for an array that comes earlier.

    Examples
    --------
    >>> sorted(["U8", "BF16", "I64", "F32"], key=storage_order)
    ['I64', 'F32', 'BF16', 'U8']
    >>> storage_order("I64") < storage_order("U8", packed=True) < storage_order("F32")
    True
    """
    return 0.5 - PACKED_ALIGNMENT if packed else -DTYPE_BYTES[dtype]


class ShardWriter:
    """Appends tensors to a file whose sizes are not known beforehand.

    Used as a context manager: after an exception the file is removed, because a part of it is of no
    use.

    Parameters
    ----------
    path : Path
        The file to write.
    expected : sequence of (str, int)
        The names that may be written, each with its number of axes; room for them is left.

    Raises
    ------
    OSError
        If the file cannot be written.
    """

    def __init__(self, path: Path, expected: Sequence[tuple[str, int]]) -> None:
        widest = {
            name: _entry("F8_E4M3", [_LARGEST_OFFSET] * n_axes, _LARGEST_OFFSET, _LARGEST_OFFSET)
            for name, n_axes in expected
        }
        size = 8 + len(_header(widest))
        self._data_start = size + -size % _DATA_ALIGNMENT
        self._entries: dict[str, Any] = {}
        self._position = 0
        self._open: tuple[str, str, tuple[int, ...] | None, int] | None = None
        self.path = path
        self._file = path.open("wb")
        self._file.seek(self._data_start)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.path.unlink(missing_ok=True)
            self._file.close()  # last: on a full disk it raises, for want of room for its buffer

    def begin(self, name: str, dtype: str, shape: tuple[int, ...] | None = None) -> None:
        """Begin a tensor.

        Parameters
        ----------
        name : str
            One of the expected names.
        dtype : str
            A dtype tag of safetensors.
        shape : tuple of int, optional
            Its shape; by default a row of bytes, as long as what is written.
        """
        self._open = (name, dtype, shape, self._position)

    def write(self, data: NDArray[Any] | bytes) -> None:
        """Append to the tensor that was begun.

        Parameters
        ----------
        data : array or bytes
            The next of its bytes; of an array, those of its elements in row-major order.
        """
        if isinstance(data, bytes):
            self._position += self._file.write(data)
        else:
            view = np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
            self._position += self._file.write(view)

    def align(self, n_bytes: int) -> None:
        """Append zeros until the tensor that was begun ends on a multiple of `n_bytes`.

        Parameters
        ----------
        n_bytes : int
            The alignment in bytes.
        """
        self.write(bytes(-self._position % n_bytes))

    def overwrite(self, offset: int, data: bytes) -> None:
        """Replace bytes of the tensor that was begun.

        Parameters
        ----------
        offset : int
            Where they begin, in bytes from the start of the tensor.
        data : bytes
            The new bytes, in the place of as many.
        """
        assert self._open is not None
        self._file.flush()
        os.pwrite(self._file.fileno(), data, self._data_start + self._open[3] + offset)

    def end(self) -> int:
        """Finish the tensor that was begun, and return its size in bytes."""
        assert self._open is not None
        name, dtype, shape, start = self._open
        n_bytes = self._position - start
        self._entries[name] = _entry(
            dtype, [n_bytes] if shape is None else shape, start, self._position
        )
        self._open = None
        return n_bytes

    def add(self, name: str, dtype: str, array: NDArray[Any]) -> int:
        """Append a whole tensor.

        Parameters
        ----------
        name : str
            One of the expected names.
        dtype : str
            A dtype tag of safetensors.
        array : array
            The tensor, as numbers or bit patterns of that dtype.

        Returns
        -------
        int
            Its size in bytes.
        """
        self.begin(name, dtype, array.shape)
        self.write(array)
        return self.end()

    def finish(self) -> None:
        """Write the header, force everything onto the disk, and close the file."""
        header = _header(self._entries).ljust(self._data_start - 8)
        self._file.flush()
        os.pwrite(self._file.fileno(), len(header).to_bytes(8, "little") + header, 0)
        os.fsync(self._file.fileno())
        self._file.close()


class DenseShard:
    """An open file with room for tensors that are all known; several threads may write to it.

    Parameters
    ----------
    path : Path
        The file to write; it gets its header and its full size at once.
    tensors : sequence of TensorInfo
        The tensors of the file; they lie in `storage_order`.

    Raises
    ------
    OSError
        If the file cannot be written; nothing is left of it.
    """

    def __init__(self, path: Path, tensors: Sequence[TensorInfo]) -> None:
        entries, starts, position = {}, {}, 0
        for tensor in sorted(tensors, key=lambda tensor: storage_order(tensor.dtype)):
            end = position + tensor.n_bytes
            entries[tensor.name] = _entry(tensor.dtype, tensor.shape, position, end)
            starts[tensor.name], position = position, end
        text = _header(entries)
        text += b" " * (-len(text) % 8)
        self._starts = {name: 8 + len(text) + start for name, start in starts.items()}
        self._file = path.open("wb", buffering=0)
        try:
            self._file.truncate(8 + len(text) + position)
            self._write_at(0, len(text).to_bytes(8, "little") + text)
        except OSError:
            self.close()
            path.unlink()
            raise

    def write(self, name: str, offset: int, data: NDArray[np.uint8]) -> None:
        """Write bytes of a tensor.

        Parameters
        ----------
        name : str
            The tensor.
        offset : int
            Where the bytes begin, counted from the start of the tensor.
        data : uint8 array, `[n]`
            The bytes.
        """
        self._write_at(self._starts[name] + offset, data.data)

    def _write_at(self, position: int, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while len(view):
            n_written = os.pwrite(self._file.fileno(), view, position)
            view, position = view[n_written:], position + n_written

    def finish(self) -> None:
        """Force everything onto the disk, and close the file."""
        os.fsync(self._file.fileno())
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _entry(dtype: str, shape: Sequence[int], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def _header(entries: dict[str, Any]) -> bytes:
    header = {"__metadata__": {"format": "pt"}, **entries}
    return json.dumps(header, separators=(",", ":")).encode()
