"""Writes one plain safetensors file whose tensors are all known beforehand, in any order."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.files.tensor_info import DTYPE_BYTES, TensorInfo


class DenseShard:
    """An open file with room for every tensor; safe to write to from several threads."""

    def __init__(self, path: Path, tensors: Sequence[TensorInfo]) -> None:
        """Create the file, header included, at its full size. Raises OSError."""
        # Widest dtype first, so that each tensor is aligned.
        ordered = sorted(tensors, key=lambda tensor: -DTYPE_BYTES[tensor.dtype])
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        starts, position = {}, 0
        for tensor in ordered:
            end = position + tensor.n_bytes
            header[tensor.name] = {
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "data_offsets": [position, end],
            }
            starts[tensor.name], position = position, end
        text = json.dumps(header, separators=(",", ":")).encode()
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
        """Put bytes at an offset of a tensor."""
        self._write_at(self._starts[name] + offset, data.data)

    def _write_at(self, position: int, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while len(view):
            n_written = os.pwrite(self._file.fileno(), view, position)
            view, position = view[n_written:], position + n_written

    def finish(self) -> None:
        """Put everything on the disk."""
        os.fsync(self._file.fileno())
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
