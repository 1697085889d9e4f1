"""What is checked when a compressed directory is opened, before any weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from isotone.checkpoint.compressed.manifest import QUANT_METHOD, READ_VERSIONS, Manifest
from isotone.checkpoint.files.safetensors_reader import SafetensorsFile
from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.model_json import read_json
from isotone.checkpoint.source.weight_files import CONFIG_FILE
from isotone.codec.arrays import CODEBOOK, PACKED, SUFFIXES
from isotone.errors import FormatError


def open_shard(path: Path, n_bytes: int | None) -> SafetensorsFile:
    """Open a shard and check its size and its header.

    Parameters
    ----------
    path : Path
        The file.
    n_bytes : int or None
        The size that the manifest records, in bytes; None if it records no such file.

    Returns
    -------
    SafetensorsFile
        The open file.

    Raises
    ------
    FormatError
        If the file has another size, or is no safetensors file.
    """
    file = SafetensorsFile.open(path)
    if file.n_bytes != n_bytes:
        raise FormatError(f"{path}: is {file.n_bytes} bytes long; the manifest records {n_bytes}")
    return file


def check_config(path: Path) -> None:
    """Check that the config.json of a directory is one that isotone wrote.

    Parameters
    ----------
    path : Path
        The directory.

    Raises
    ------
    FormatError
        If config.json does not name isotone, or names a format version that is not read.
    """
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


def check_arrays(path: Path, manifest: Manifest, arrays: Mapping[str, TensorInfo]) -> None:
    """Check that the shards of a directory hold the arrays that its manifest implies.

    Parameters
    ----------
    path : Path
        The directory, for messages.
    manifest : Manifest
        What it records.
    arrays : mapping of str to TensorInfo
        The arrays in its shards, by name.

    Raises
    ------
    FormatError
        If an array is missing, is not recorded, or is of another shape or dtype.
    """
    required = {r.name + s for r in manifest.clustered for s in (PACKED, CODEBOOK)}
    allowed = {r.name + s for r in manifest.clustered for s in SUFFIXES}
    for record in manifest.kept:
        if record.tied_to is not None:
            continue
        required.add(record.name)
        array = arrays.get(record.name)
        if array is not None and (array.dtype, array.shape) != (record.dtype, record.shape):
            raise FormatError(f"{path}: {record.name} is not of the recorded shape, dtype")
    missing = sorted(required - arrays.keys())
    extra = sorted(arrays.keys() - required - allowed)
    if missing or extra:
        raise FormatError(
            f"{path}: its shards lack {missing[:3] or 'nothing'} and hold "
            f"{extra[:3] or 'nothing'} beyond what the manifest records"
        )
