"""A directory as it will be written: its arrays, or new ones in their place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from isotone.checkpoint.compressed.manifest import ClusteredRecord, KeptRecord, Record
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.files.safetensors_writer import ShardWriter, storage_order
from isotone.checkpoint.files.tensor_info import DTYPE_BYTES, TensorInfo
from isotone.checkpoint.overlay.tensor_overlay import FittedOverlay
from isotone.codec.arrays import SUFFIXES
from isotone.engine.progress import Progress

_PIECE_BYTES = 8 << 20


class OverlaidDirectory:
    """An open directory with new values that fit it.

    Parameters
    ----------
    directory : CompressedDirectory
        The open directory.
    overlays : sequence of FittedOverlay
        The new values, in the order of the directory's tensors.
    """

    def __init__(self, directory: CompressedDirectory, overlays: Sequence[FittedOverlay]) -> None:
        self.directory = directory
        self.overlays = {each.record.name: each for each in overlays}
        self._new = {
            array.name: (array, data) for each in overlays for array, data in each.arrays.items()
        }

    def n_bytes(self, record: Record) -> int:
        """Return the bytes that all arrays of a tensor will take.

        Parameters
        ----------
        record : ClusteredRecord or KeptRecord
            A stored tensor of the directory.

        Returns
        -------
        int
            The bytes of its arrays.
        """
        return sum(array.n_bytes for array in self._arrays(record))

    def clustered_record(self, record: ClusteredRecord) -> ClusteredRecord:
        """Return what a complete directory records of a clustered tensor.

        Parameters
        ----------
        record : ClusteredRecord
            What the open directory records.

        Returns
        -------
        ClusteredRecord
            The record of all of its arrays, as they will be.
        """
        new = self.overlays.get(record.name)
        merged = record if new is None else new.record.over(record)
        return replace(merged, stored_bytes=self.n_bytes(record))

    def kept_record(self, record: KeptRecord) -> KeptRecord:
        """Return what a complete directory records of a tensor that is not clustered.

        Parameters
        ----------
        record : KeptRecord
            What the open directory records.

        Returns
        -------
        KeptRecord
            The record of its bytes, as they will be.
        """
        new = self.overlays.get(record.name)
        return record if new is None else new.record.over(record)

    def write_new(self, path: Path, progress: Progress) -> None:
        """Write the new arrays to a shard of their own.

        Parameters
        ----------
        path : Path
            The file to write.
        progress : Progress
            Told the bytes that are written.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        arrays = [array for array, _ in self._new.values()]
        room = [(array.name, len(array.shape)) for array in arrays]
        ordered = sorted(arrays, key=lambda array: storage_order(array.dtype))
        self._write(path, room, ordered, progress)

    def write_whole(self, path: Path, records: Iterable[Record], progress: Progress) -> None:
        """Write all arrays of some tensors to a shard, in the order that compressing gives them.

        Parameters
        ----------
        path : Path
            The file to write.
        records : iterable of ClusteredRecord or KeptRecord
            The tensors of the shard.
        progress : Progress
            Told the bytes that are written.

        Raises
        ------
        OSError
            If the file cannot be written.
        FormatError
            If a file of the open directory was truncated meanwhile.
        """
        room: list[tuple[str, int]] = []
        packed, small, kept = [], [], []
        for record in records:
            arrays = self._arrays(record)
            if isinstance(record, ClusteredRecord):
                room += [(record.name + suffix, 2) for suffix in SUFFIXES]
                packed += [(array, True) for array in arrays[:1]]
                small += [(array, False) for array in arrays[1:]]
            else:
                room += [(array.name, len(array.shape)) for array in arrays]
                kept += [(array, False) for array in arrays]
        ordered = sorted(
            [*packed, *small, *kept], key=lambda each: storage_order(each[0].dtype, packed=each[1])
        )
        self._write(path, room, [array for array, _ in ordered], progress)

    def _arrays(self, record: Record) -> list[TensorInfo]:
        """Return all arrays of a tensor as they will be, the packed ranks first."""
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
