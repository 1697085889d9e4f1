"""Writes one safetensors file in a single pass, before its tensors' sizes are known.

The header comes first in the file and is known last, so room is left for it and what is not needed
is filled with spaces, as the format allows. Tensors follow each other without gaps; a caller writes
those with the widest alignment first, so that each array is aligned to its dtype.
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

_ALIGNMENT = 64
_LARGEST_OFFSET = 10**15


class ShardWriter:
    """Appends tensors to a file.

    Used as a context manager: on an exception the file is removed, for half of one is of no use.
    """

    def __init__(self, path: Path, expected: Sequence[tuple[str, int]]) -> None:
        """Create the file.

        expected: the names that may be written, each with its number of axes. Raises OSError.
        """
        widest = {
            name: _entry("F8_E4M3", [_LARGEST_OFFSET] * n_axes, _LARGEST_OFFSET, _LARGEST_OFFSET)
            for name, n_axes in expected
        }
        size = 8 + len(_dump({"__metadata__": {"format": "pt"}, **widest}))
        self._data_start = size + -size % _ALIGNMENT
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
        """Start a tensor; without a shape it is a row of bytes as long as what is written."""
        self._open = (name, dtype, shape, self._position)

    def write(self, data: NDArray[Any] | bytes) -> None:
        """Append to the tensor that is open."""
        if isinstance(data, bytes):
            self._position += self._file.write(data)
        else:
            view = np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
            self._position += self._file.write(view)

    def align(self, n_bytes: int) -> None:
        """Append zeros until the tensor that is open ends on a multiple of n_bytes."""
        self.write(bytes(-self._position % n_bytes))

    def overwrite(self, offset: int, data: bytes) -> None:
        """Replace bytes of the tensor that is open, counted from its first."""
        assert self._open is not None
        self._file.flush()
        os.pwrite(self._file.fileno(), data, self._data_start + self._open[3] + offset)

    def end(self) -> int:
        """Finish the tensor that is open; returns its size in bytes."""
        assert self._open is not None
        name, dtype, shape, start = self._open
        n_bytes = self._position - start
        self._entries[name] = _entry(
            dtype, [n_bytes] if shape is None else shape, start, self._position
        )
        self._open = None
        return n_bytes

    def add(self, name: str, dtype: str, array: NDArray[Any]) -> int:
        """Append a whole tensor; returns its size in bytes."""
        self.begin(name, dtype, array.shape)
        self.write(array)
        return self.end()

    def finish(self) -> None:
        """Write the header and put everything on the disk."""
        header = _dump({"__metadata__": {"format": "pt"}, **self._entries})
        header = header.ljust(self._data_start - 8)
        self._file.flush()
        os.pwrite(self._file.fileno(), len(header).to_bytes(8, "little") + header, 0)
        os.fsync(self._file.fileno())
        self._file.close()


def _entry(dtype: str, shape: Sequence[int], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def _dump(header: dict[str, Any]) -> bytes:
    return json.dumps(header, separators=(",", ":")).encode()
