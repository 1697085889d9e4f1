"""Reads a directory that isotone wrote: manifest, shards, and the arrays of each tensor.

Opening checks everything that can be checked without reading weights: the manifest's digest, the
sizes of the shards, their headers, and that they hold exactly the arrays that the manifest implies.
A codebook-only directory is opened with its base, and shows both as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.compressed.manifest import (
    MANIFEST_FILE,
    QUANT_METHOD,
    READ_VERSIONS,
    ClusteredRecord,
    FileRecord,
    KeptRecord,
    Manifest,
    Record,
)
from isotone.checkpoint.files.location import is_remote
from isotone.checkpoint.files.safetensors_reader import SafetensorsFile
from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.overlay.base_search import find_base
from isotone.checkpoint.overlay.check import check_changed_arrays
from isotone.checkpoint.overlay.manifest import WEIGHTS_FILE, CodebookManifest, read_manifest
from isotone.checkpoint.source.model_directory import CONFIG_FILE, read_json
from isotone.checkpoint.staging.small_files import read_small_file
from isotone.codec.arrays import CODEBOOK, PACKED, SUFFIXES, StoredArray, values_of
from isotone.codec.packed import PackedReader
from isotone.core.float_format import FloatFormat
from isotone.core.values import Values
from isotone.errors import FormatError, InputError

_MOST_LAYERS = 16  # of codebook-only directories, one over the other

Arrays = dict[str, tuple[SafetensorsFile, TensorInfo]]
"""Where each array is."""


@dataclass(frozen=True)
class CompressedDirectory:
    """An open directory; safe to read from several threads.

    manifest: what it records; of a codebook-only one: what its base records with what has changed,
        and its own files. digest: what identifies it.
    base: of a codebook-only directory, else None. changed: the names of tensors whose values are
        not those of the base.
    """

    path: Path
    manifest: Manifest
    digest: str
    base: CompressedDirectory | None
    changed: frozenset[str]
    _shards: tuple[SafetensorsFile, ...]
    _arrays: Arrays

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open and check a directory, and its base where it has one.

        Raises InputError where isotone did not write it, FormatError where it or its base is
        damaged, and where the base is not found.
        """
        if not (path / MANIFEST_FILE).is_file():
            what = "has no isotone.json" if path.is_dir() else "no such directory"
            raise InputError(f"{path}: {what}; expected a directory that isotone compress wrote")
        return cls._open(path, *read_manifest(path), n_above=0)

    @classmethod
    def _open(
        cls, path: Path, manifest: Manifest | CodebookManifest, digest: str, *, n_above: int
    ) -> Self:
        """n_above: how many codebook-only directories it is the base of."""
        _check_config(path)
        sizes = {record.name: record.n_bytes for record in manifest.files}
        if isinstance(manifest, CodebookManifest):
            shard = _open_shard(path / WEIGHTS_FILE, sizes.get(WEIGHTS_FILE))
            return cls._open_changes(path, manifest, digest, shard, n_above)
        shards = tuple(_open_shard(path / name, sizes.get(name)) for name in manifest.by_shard)
        directory = cls(path, manifest, digest, None, frozenset(), shards, _arrays_of(shards))
        directory._check_arrays()
        return directory

    @classmethod
    def _open_changes(
        cls,
        path: Path,
        manifest: CodebookManifest,
        digest: str,
        shard: SafetensorsFile,
        n_above: int,
    ) -> Self:
        """The same of a codebook-only directory; shard: its one file with arrays."""
        if is_remote(path):
            raise FormatError(
                f"{path}: holds changed codebooks alone, which are read from this machine's disks; "
                "fetch it and its base first"
            )
        if n_above == _MOST_LAYERS:
            raise FormatError(f"{path}: is the base of {n_above} others, and has a base itself")
        found = find_base(path, manifest.base)
        base = cls._open(*found, manifest.base.digest, n_above=n_above + 1)
        shapes = {name: array.shape for name, (_, array) in base._arrays.items()}
        check_changed_arrays(shard, manifest.changed, base.manifest.stored, shapes)
        return cls(
            path=path,
            manifest=manifest.over(base.manifest),
            digest=digest,
            base=base,
            changed=frozenset(record.name for record in manifest.changed),
            _shards=(shard,),
            _arrays=base._arrays | _arrays_of([shard]),
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
        """Those that hold arrays."""
        shards = {shard.path for layer in self.layers for shard in layer._shards}
        return ((path, record) for path, record in self.files if path in shards)

    def small_files(self) -> dict[str, bytes]:
        """The directory's own other files, by name; raises FormatError where one was changed."""
        shards = {shard.path.name for shard in self._shards}
        return {
            record.name: read_small_file(self.path, record)
            for record in self.manifest.files
            if record.name not in shards
        }

    def arrays(self, record: Record) -> list[TensorInfo]:
        """The arrays of a stored tensor, in the order in which they are written."""
        names = [record.name]
        if isinstance(record, ClusteredRecord):
            names = [record.name + suffix for suffix in SUFFIXES]
        return [self._arrays[name][1] for name in names if name in self._arrays]

    def read(self, array: TensorInfo, start: int, stop: int) -> NDArray[np.uint8]:
        """The bytes of elements start to stop of an array."""
        return self._arrays[array.name][0].read(array, start, stop)

    def where(self, record: Record) -> str:
        """The files that a tensor's arrays are in, and its name: for messages."""
        paths = {str(self._arrays[array.name][0].path): None for array in self.arrays(record)}
        return f"{' and '.join(paths)}: {record.name}"

    def packed(self, record: ClusteredRecord) -> PackedReader:
        """The reader of a tensor's ranks; raises FormatError where it is not what was recorded."""
        file, array = self._arrays[record.name + PACKED]
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
        """The codebook, scales and protected weights of a tensor."""
        arrays = {
            array.name.removeprefix(record.name): self._stored(array)
            for array in self.arrays(record)
            if array.name != record.name + PACKED
        }
        return values_of(arrays, reader.layout, self.where(record))

    def read_kept(self, record: KeptRecord, start: int, stop: int) -> NDArray[np.uint8]:
        """The bytes of elements start to stop of a tensor that was stored bit for bit."""
        return self.read(self._arrays[record.name][1], start, stop)

    def _stored(self, info: TensorInfo) -> StoredArray:
        """A small array, as patterns for the floating formats that NumPy may lack."""
        file = self._arrays[info.name][0]
        dtypes: dict[str, np.dtype[Any]] = {"U8": np.dtype("u1"), "U16": np.dtype("<u2")}
        dtypes |= {float_format.value: float_format.bits_dtype for float_format in FloatFormat}
        if info.dtype not in dtypes:
            raise FormatError(f"{file.path}: {info.name} has dtype {info.dtype}, which none should")
        data = file.read(info, 0, info.n_weights)
        return StoredArray(info.dtype, data.view(dtypes[info.dtype]).reshape(info.shape))

    def _check_arrays(self) -> None:
        required = {r.name + s for r in self.manifest.clustered for s in (PACKED, CODEBOOK)}
        allowed = {r.name + s for r in self.manifest.clustered for s in SUFFIXES}
        for record in self.manifest.kept:
            if record.tied_to is not None:
                continue
            required.add(record.name)
            _, info = self._arrays.get(record.name, (None, None))
            if info is not None and (info.dtype, info.shape) != (record.dtype, record.shape):
                raise FormatError(f"{self.path}: {record.name} is not of the recorded shape, dtype")
        missing = sorted(required - self._arrays.keys())
        extra = sorted(self._arrays.keys() - required - allowed)
        if missing or extra:
            raise FormatError(
                f"{self.path}: its shards lack {missing[:3] or 'nothing'} and hold "
                f"{extra[:3] or 'nothing'} beyond what the manifest records"
            )


def _open_shard(path: Path, n_bytes: int | None) -> SafetensorsFile:
    file = SafetensorsFile.open(path)
    if file.n_bytes != n_bytes:
        raise FormatError(f"{path}: is {file.n_bytes} bytes long; the manifest records {n_bytes}")
    return file


def _arrays_of(files: Iterable[SafetensorsFile]) -> Arrays:
    return {tensor.name: (file, tensor) for file in files for tensor in file.tensors}


def _check_config(path: Path) -> None:
    quantization = read_json(path / CONFIG_FILE).get("quantization_config")
    if not isinstance(quantization, dict) or quantization.get("quant_method") != QUANT_METHOD:
        raise FormatError(
            f"{path / CONFIG_FILE}: has no quantization_config with quant_method "
            f"{QUANT_METHOD!r}; it is not the one that isotone wrote"
        )
    version = quantization.get("format_version")
    if version not in READ_VERSIONS:
        raise FormatError(
            f"{path / CONFIG_FILE}: has format version {version!r}; this isotone reads "
            f"{', '.join(map(str, READ_VERSIONS))}; install the isotone that wrote it"
        )
