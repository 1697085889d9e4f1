"""An open compressed directory: its manifest, its shards, and the arrays of each tensor.

Opening checks everything that can be checked without reading weights: the manifest's digest, the
sizes of the shards, their headers, and that they hold exactly the arrays that the manifest implies.
A directory is opened with `isotone.checkpoint.opening.open_compressed`; a codebook-only one is
opened together with its base, and shows both as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.compressed.check import check_arrays, check_config, open_shard
from isotone.checkpoint.compressed.file_record import FileRecord
from isotone.checkpoint.compressed.manifest import ClusteredRecord, Manifest, Record
from isotone.checkpoint.files.safetensors_reader import SafetensorsFile
from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.model_json import read_json
from isotone.checkpoint.source.weight_files import CONFIG_FILE, INDEX_FILE
from isotone.codec.arrays import PACKED, SUFFIXES, StoredArray, values_of
from isotone.codec.packed import PackedReader
from isotone.core.float_format import FloatFormat
from isotone.core.values import Values
from isotone.errors import FormatError

Arrays = dict[str, tuple[SafetensorsFile, TensorInfo]]
"""The file and the description of each stored array, by the array's name."""


@dataclass(frozen=True)
class CompressedDirectory:
    """An open directory; safe to read from several threads, and it pickles.

    Attributes
    ----------
    path : Path
        Where it is.
    manifest : Manifest
        What it records. For a codebook-only directory: what its base records, with the values that
        are new, and the files of the directory itself.
    digest : str
        The digest of its isotone.json, which identifies it.
    base : CompressedDirectory, optional
        The base of a codebook-only directory, otherwise None.
    changed : frozenset of str
        The names of tensors whose values are not those of the base.
    """

    path: Path
    manifest: Manifest
    digest: str
    base: CompressedDirectory | None
    changed: frozenset[str]
    _shards: tuple[SafetensorsFile, ...]
    _arrays: Arrays

    @classmethod
    def open_complete(cls, path: Path, manifest: Manifest, digest: str) -> Self:
        """Open a directory that needs no base; callers use `open_compressed`.

        Parameters
        ----------
        path : Path
            The directory.
        manifest : Manifest
            What its isotone.json records.
        digest : str
            The digest of its isotone.json.

        Returns
        -------
        CompressedDirectory
            The open directory.

        Raises
        ------
        FormatError
            If config.json or a shard is missing or damaged, or the shards hold other arrays than
            the manifest records.
        """
        check_config(path)
        sizes = {record.name: record.n_bytes for record in manifest.files}
        shards = tuple(open_shard(path / name, sizes.get(name)) for name in manifest.by_shard)
        arrays = _arrays_of(shards)
        check_arrays(path, manifest, {name: array for name, (_, array) in arrays.items()})
        return cls(path, manifest, digest, None, frozenset(), shards, arrays)

    def overlaid(
        self,
        path: Path,
        manifest: Manifest,
        digest: str,
        changed: Iterable[str],
        shard: SafetensorsFile,
    ) -> CompressedDirectory:
        """Return the codebook-only directory that has this one as its base.

        Parameters
        ----------
        path : Path
            The codebook-only directory.
        manifest : Manifest
            What this directory records, with the values that are new.
        digest : str
            The digest of the codebook-only directory's isotone.json.
        changed : iterable of str
            The names of the tensors with new values.
        shard : SafetensorsFile
            The file with the new arrays, already checked.

        Returns
        -------
        CompressedDirectory
            Both directories as one.
        """
        return replace(
            self,
            path=path,
            manifest=manifest,
            digest=digest,
            base=self,
            changed=frozenset(changed),
            _shards=(shard,),
            _arrays=self._arrays | _arrays_of([shard]),
        )

    @property
    def config(self) -> dict[str, Any]:
        """The content of config.json."""
        return read_json(self.path / CONFIG_FILE)

    @property
    def layers(self) -> list[CompressedDirectory]:
        """The directory itself, its base, the base of that, and so on."""
        return [self, *(self.base.layers if self.base else ())]

    @property
    def files(self) -> Iterator[tuple[Path, FileRecord]]:
        """Every recorded file of all layers, with its path."""
        for layer in self.layers:
            for record in layer.manifest.files:
                yield layer.path / record.name, record

    @property
    def shard_files(self) -> Iterator[tuple[Path, FileRecord]]:
        """The recorded files of all layers that hold arrays."""
        shards = {shard.path for layer in self.layers for shard in layer._shards}
        return ((path, record) for path, record in self.files if path in shards)

    @property
    def array_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every stored array, by the array's name."""
        return {name: array.shape for name, (_, array) in self._arrays.items()}

    @property
    def companions(self) -> list[FileRecord]:
        """The directory's own other files: neither shards, nor config.json, nor the index."""
        own = {*(shard.path.name for shard in self._shards), CONFIG_FILE, INDEX_FILE}
        return [record for record in self.manifest.files if record.name not in own]

    def arrays(self, record: Record) -> list[TensorInfo]:
        """Return the arrays of a stored tensor, in the order of their suffixes.

        Parameters
        ----------
        record : ClusteredRecord or KeptRecord
            A stored tensor of the directory.

        Returns
        -------
        list of TensorInfo
            The packed ranks first; a kept tensor is its only array.
        """
        names = [record.name]
        if isinstance(record, ClusteredRecord):
            names = [record.name + suffix for suffix in SUFFIXES]
        return [self._arrays[name][1] for name in names if name in self._arrays]

    def read(self, array: TensorInfo, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the bytes of a range of an array.

        Parameters
        ----------
        array : TensorInfo
            One of `arrays`.
        start, stop : int
            The range in elements; `stop` is not part of it.

        Returns
        -------
        uint8 array, `[(stop - start) * itemsize]`
            The little-endian bytes.
        """
        return self._arrays[array.name][0].read(array, start, stop)

    def where(self, record: Record) -> str:
        """Return the files that hold a tensor's arrays, and its name, for messages.

        Parameters
        ----------
        record : ClusteredRecord or KeptRecord
            A stored tensor of the directory.

        Returns
        -------
        str
            Such as `DIR/model.safetensors: lm_head.weight`.
        """
        paths = {str(self._arrays[array.name][0].path): None for array in self.arrays(record)}
        return f"{' and '.join(paths)}: {record.name}"

    def packed(self, record: ClusteredRecord) -> PackedReader:
        """Return the reader of a tensor's ranks.

        Parameters
        ----------
        record : ClusteredRecord
            A tensor of the directory.

        Returns
        -------
        PackedReader
            Decodes the ranks chunk by chunk.

        Raises
        ------
        FormatError
            If the packed array is no array of bytes, or is not of the recorded shape, dtype or k.
        """
        file, array = self._arrays[record.name + PACKED]
        if array.dtype != "U8":
            raise FormatError(f"{file.path}: {array.name} is of {array.dtype}; expected U8")
        reader = PackedReader(
            lambda start, stop: file.read(array, start, stop),
            array.n_bytes,
            f"{file.path}: {array.name}",
        )
        layout = reader.layout
        if (layout.shape, layout.float_format.value, layout.k, layout.n_matrices) != (
            record.shape,
            record.dtype,
            record.k,
            record.n_matrices,
        ):
            raise FormatError(f"{file.path}: {array.name} is not of the recorded shape, dtype or k")
        return reader

    def values(self, record: ClusteredRecord, reader: PackedReader) -> Values:
        """Return the codebook, scales and protected weights of a tensor.

        Parameters
        ----------
        record : ClusteredRecord
            A tensor of the directory.
        reader : PackedReader
            The reader of its ranks.

        Returns
        -------
        Values
            All that its ranks stand for.
        """
        arrays = {
            array.name.removeprefix(record.name): self._stored(array)
            for array in self.arrays(record)
            if array.name != record.name + PACKED
        }
        return values_of(arrays, reader.layout, self.where(record))

    def _stored(self, info: TensorInfo) -> StoredArray:
        """Return a small array; floating formats as bit patterns, because NumPy lacks some."""
        file = self._arrays[info.name][0]
        dtypes: dict[str, np.dtype[Any]] = {"U8": np.dtype("u1"), "U16": np.dtype("<u2")}
        dtypes |= {float_format.value: float_format.bits_dtype for float_format in FloatFormat}
        if info.dtype not in dtypes:
            known = ", ".join(dtypes)
            raise FormatError(
                f"{file.path}: {info.name} has dtype {info.dtype}; expected one of {known}"
            )
        data = file.read(info, 0, info.n_weights)
        return StoredArray(info.dtype, data.view(dtypes[info.dtype]).reshape(info.shape))


def _arrays_of(files: Iterable[SafetensorsFile]) -> Arrays:
    return {tensor.name: (file, tensor) for file in files for tensor in file.tensors}
