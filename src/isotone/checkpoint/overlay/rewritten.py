"""A directory as it will be written: its arrays, new ones in the place of those they change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from isotone.checkpoint.compressed.manifest import ClusteredRecord, KeptRecord, Record
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.files.safetensors_writer import ShardWriter
from isotone.checkpoint.files.tensor_info import DTYPE_BYTES, TensorInfo
from isotone.checkpoint.overlay.change import Changed
from isotone.codec.arrays import SUFFIXES
from isotone.codec.packed import ALIGNMENT
from isotone.engine.progress import Progress

_PIECE_BYTES = 8 << 20


class Recoded:
    """An open directory with changes that fit it. changed: by tensor, in the directory's order."""

    def __init__(self, directory: CompressedDirectory, changed: Sequence[Changed]) -> None:
        self.directory = directory
        self.changed = {each.record.name: each for each in changed}
        self._new = {
            array.name: (array, data) for each in changed for array, data in each.arrays.items()
        }

    def n_bytes(self, record: Record) -> int:
        """What all arrays of a tensor will take."""
        return sum(array.n_bytes for array in self._arrays(record))

    def clustered_record(self, record: ClusteredRecord) -> ClusteredRecord:
        """What is recorded of a tensor that is stored as a whole."""
        changed = self.changed.get(record.name)
        merged = record if changed is None else changed.record.over(record)
        return replace(merged, stored_bytes=self.n_bytes(record))

    def kept_record(self, record: KeptRecord) -> KeptRecord:
        """The same of one that was not clustered."""
        changed = self.changed.get(record.name)
        return record if changed is None else changed.record.over(record)

    def write_new(self, path: Path, progress: Progress) -> None:
        """Write the new arrays to a shard of their own; raises OSError."""
        arrays = [array for array, _ in self._new.values()]
        room = [(array.name, len(array.shape)) for array in arrays]
        self._write(path, room, sorted(arrays, key=_narrowness), progress)

    def write_whole(self, path: Path, records: Iterable[Record], progress: Progress) -> None:
        """Write all arrays of some tensors to a shard, laid out as compress does it.

        Raises OSError, and FormatError for a file that is truncated meanwhile.
        """
        room: list[tuple[str, int]] = []
        packed, small, kept = [], [], []
        for record in records:
            arrays = self._arrays(record)
            if isinstance(record, ClusteredRecord):
                room += [(record.name + suffix, 2) for suffix in SUFFIXES]
                packed += arrays[:1]
                small += arrays[1:]
            else:
                room += [(array.name, len(array.shape)) for array in arrays]
                kept += arrays
        wide = [array for array in kept if DTYPE_BYTES[array.dtype] >= ALIGNMENT]
        narrow = [array for array in kept if DTYPE_BYTES[array.dtype] < ALIGNMENT]
        ordered = [*wide, *packed, *sorted([*small, *narrow], key=_narrowness)]
        self._write(path, room, ordered, progress)

    def _arrays(self, record: Record) -> list[TensorInfo]:
        """All arrays of a tensor as they will be, the packed one first."""
        present = self.directory.arrays(record)
        return [self._new[a.name][0] if a.name in self._new else a for a in present]

    def _write(
        self,
        path: Path,
        room: Sequence[tuple[str, int]],
        arrays: Sequence[TensorInfo],
        progress: Progress,
    ) -> None:
        with ShardWriter(path, room) as writer:
            for array in arrays:
                writer.begin(array.name, array.dtype, array.shape)
                for piece in self._pieces(array):
                    writer.write(piece)
                    progress.advance(piece.nbytes)
                writer.end()
            writer.finish()

    def _pieces(self, array: TensorInfo) -> Iterator[NDArray[Any]]:
        if array.name in self._new:
            yield self._new[array.name][1]
            return
        step = _PIECE_BYTES // DTYPE_BYTES[array.dtype]
        for start in range(0, array.n_weights, step):
            yield self.directory.read(array, start, min(start + step, array.n_weights))


def _narrowness(array: TensorInfo) -> int:
    return -DTYPE_BYTES[array.dtype]
