"""Reads a directory that isotone wrote: manifest, shards, and the arrays of each tensor.

Opening checks everything that can be checked without reading weights: the manifest's digest, the
sizes of the shards, their headers, and that they hold exactly the arrays that the manifest implies.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.manifest import (
    MANIFEST_FILE,
    QUANT_METHOD,
    READ_VERSIONS,
    ClusteredRecord,
    KeptRecord,
    Manifest,
)
from isotone.checkpoint.model_directory import CONFIG_FILE, read_json
from isotone.checkpoint.safetensors_file import SafetensorsFile
from isotone.checkpoint.source import TensorInfo
from isotone.codec.arrays import CODEBOOK, PACKED, SUFFIXES, StoredArray, with_assignments
from isotone.codec.packed import PackedReader
from isotone.core.clustered_tensor import ClusteredTensor
from isotone.core.float_format import FloatFormat
from isotone.errors import FormatError, InputError


@dataclass(frozen=True)
class CompressedDirectory:
    """An open directory; safe to read from several threads."""

    path: Path
    manifest: Manifest
    _files: dict[str, SafetensorsFile]
    _tensors: dict[str, TensorInfo]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open and check a directory.

        Raises InputError where isotone did not write it, FormatError where it is damaged.
        """
        if not (path / MANIFEST_FILE).is_file():
            what = "has no isotone.json" if path.is_dir() else "no such directory"
            raise InputError(f"{path}: {what}; expected a directory that isotone compress wrote")
        manifest = Manifest.read(path)
        _check_config(path)
        sizes = {record.name: record.n_bytes for record in manifest.files}
        files = {name: _open_shard(path / name, sizes.get(name)) for name in manifest.shards}
        directory = cls(
            path, manifest, files, {t.name: t for f in files.values() for t in f.tensors}
        )
        directory._check_arrays()
        return directory

    @property
    def config(self) -> dict[str, Any]:
        """The content of config.json."""
        return read_json(self.path / CONFIG_FILE)

    def packed(self, record: ClusteredRecord) -> PackedReader:
        """The reader of a tensor's ranks; raises FormatError where it is not what was recorded."""
        file, array = self._files[record.file], self._tensors[record.name + PACKED]
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

    def values(self, record: ClusteredRecord, reader: PackedReader) -> ClusteredTensor:
        """A tensor's codebook, scales and protected weights, without its assignments."""
        file = self._files[record.file]
        arrays = {}
        for suffix in SUFFIXES:
            info = self._tensors.get(record.name + suffix)
            if info is not None and suffix != PACKED:
                arrays[suffix] = _stored(file, info)
        name = f"{file.path}: {record.name}"
        return with_assignments(arrays, reader.layout, np.empty(0, np.uint8), name)

    def read_kept(self, record: KeptRecord, start: int, stop: int) -> NDArray[np.uint8]:
        """The bytes of elements start to stop of a tensor that was stored bit for bit."""
        return self._files[record.file].read(self._tensors[record.name], start, stop)

    def _check_arrays(self) -> None:
        required = {r.name + s for r in self.manifest.clustered for s in (PACKED, CODEBOOK)}
        allowed = {r.name + s for r in self.manifest.clustered for s in SUFFIXES}
        for record in self.manifest.kept:
            if record.tied_to is not None:
                continue
            required.add(record.name)
            info = self._tensors.get(record.name)
            if info is not None and (info.dtype, info.shape) != (record.dtype, record.shape):
                raise FormatError(f"{self.path}: {record.name} is not of the recorded shape, dtype")
        missing = sorted(required - self._tensors.keys())
        extra = sorted(self._tensors.keys() - required - allowed)
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


def _stored(file: SafetensorsFile, info: TensorInfo) -> StoredArray:
    """A small array, as patterns for the floating formats that NumPy may lack."""
    dtypes: dict[str, np.dtype[Any]] = {"U8": np.dtype("u1"), "U16": np.dtype("<u2")}
    dtypes |= {float_format.value: float_format.bits_dtype for float_format in FloatFormat}
    if info.dtype not in dtypes:
        raise FormatError(f"{file.path}: {info.name} has dtype {info.dtype}, which none should")
    data = file.read(info, 0, info.n_weights)
    return StoredArray(info.dtype, data.view(dtypes[info.dtype]).reshape(info.shape))
