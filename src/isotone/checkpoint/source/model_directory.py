"""A dense model on disk as Hugging Face lays it out: a directory, or a single safetensors file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.files.location import fingerprints, is_remote
from isotone.checkpoint.files.safetensors_reader import SafetensorsFile
from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.source import CompanionFile
from isotone.errors import FormatError, InputError

CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"
INDEX_SUFFIX = ".safetensors.index.json"

_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
_WEIGHTS = _PICKLES | {".safetensors", ".gguf", ".h5", ".msgpack", ".onnx", ".ot", ".tflite"}


class SafetensorsFiles:
    """The tensors of one or many open safetensors files, read only.

    Parameters
    ----------
    files : sequence of SafetensorsFile
        The open files.

    Raises
    ------
    FormatError
        If two files hold a tensor of the same name.
    """

    skipped: Sequence[str] = ()

    def __init__(self, files: Sequence[SafetensorsFile]) -> None:
        self.files = tuple(files)
        self._file_of = _unique_owners(self.files)

    @property
    def tensors(self) -> Sequence[TensorInfo]:
        """All tensors, in the order in which they are stored."""
        return [tensor for file in self.files for tensor in file.tensors]

    @property
    def n_bytes(self) -> int:
        """The bytes of the files."""
        return sum(file.n_bytes for file in self.files)

    def read(self, tensor: TensorInfo, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the bytes of a range of a flattened tensor; see `Source.read`.

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
        """
        return self._file_of[tensor.name].read(tensor, start, stop)

    def forget(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Drop a range from the page cache, because it will not be read again.

        Parameters
        ----------
        tensor : TensorInfo
            One of `tensors`.
        start, stop : int
            The range in elements.
        """
        self._file_of[tensor.name].forget(tensor, start, stop)

    def identity(self) -> dict[str, Any]:
        """Return what must be equal in two runs that share work; see `files_identity`."""
        return files_identity([file.path for file in self.files])


class ModelDirectory(SafetensorsFiles):
    """A directory with one or many safetensors shards, read only.

    Parameters
    ----------
    directory : Path
        The directory, on this machine or in a store. Every shard is opened, and its header checked.

    Raises
    ------
    InputError
        If the directory has no safetensors file, or more than one index.
    FormatError
        If a shard is damaged, or the index does not fit the shards.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__([SafetensorsFile.open(path) for path in _shards(directory)])
        self.directory = directory
        _check_index(directory, self._file_of)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of config.json; empty if there is none."""
        return read_json(self.directory / CONFIG_FILE)

    @property
    def companions(self) -> Sequence[CompanionFile]:
        """The other files of the model: no weights, no index, nothing hidden."""
        return [
            CompanionFile(name.as_posix(), path)
            for path in sorted(self.directory.rglob("*"))
            for name in (PurePosixPath(path.relative_to(self.directory).as_posix()),)
            if _is_companion(name) and path.is_file()
        ]

    def identity(self) -> dict[str, Any]:
        """Return what must be equal in two runs that share work: the files, and the config."""
        config = json.dumps(self.config, sort_keys=True).encode()
        return {**super().identity(), CONFIG_FILE: hashlib.sha256(config).hexdigest()}


class SingleFile(SafetensorsFiles):
    """One safetensors file by itself, without config and companions.

    Parameters
    ----------
    path : Path
        The file, on this machine or in a store.

    Raises
    ------
    FormatError
        If the file is damaged.
    """

    companions: Sequence[CompanionFile] = ()

    def __init__(self, path: Path) -> None:
        super().__init__([SafetensorsFile.open(path)])
        self.config: dict[str, Any] = {}


def files_identity(paths: Sequence[Path]) -> dict[str, Any]:
    """Return what distinguishes versions of weight files.

    Parameters
    ----------
    paths : sequence of Path
        Files of one directory.

    Returns
    -------
    dict of str to JSON
        By name: the size in bytes, the time of the last change in nanoseconds, and a digest of the
        first 64 KiB, which hold the header. For files in a store: `fingerprints`.
    """
    identity: dict[str, Any] = {}
    if is_remote(paths[0]):
        return {**fingerprints(paths)}
    for path in paths:
        status = path.stat()
        with path.open("rb") as file:
            head = hashlib.sha256(file.read(1 << 16)).hexdigest()
        identity[path.name] = [status.st_size, status.st_mtime_ns, head]
    return identity


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file that holds a table.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict
        The table; empty if there is no such file.

    Raises
    ------
    FormatError
        If the file cannot be read, or holds no JSON table.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path}: is not a JSON table")
    return content


def _shards(directory: Path) -> list[Path]:
    indexes = sorted(directory.glob(f"*{INDEX_SUFFIX}"))
    if len(indexes) > 1:
        names = ", ".join(index.name for index in indexes)
        raise InputError(f"{directory}: has more than one index ({names}); keep one of them")
    if indexes:
        return _indexed_shards(directory, indexes[0])
    shards = sorted(directory.glob("*.safetensors"))
    if shards:
        return shards
    found = sorted(path.name for path in directory.iterdir() if path.suffix in _PICKLES)
    if found:
        raise InputError(
            f"{directory}: holds its weights as pickles ({found[0]}), which can run code and are "
            "not read; convert them with transformers: "
            "AutoModel.from_pretrained(DIR).save_pretrained(NEW, safe_serialization=True)"
        )
    raise InputError(f"{directory}: holds no .safetensors file; expected a model directory")


def _indexed_shards(directory: Path, index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise FormatError(f"{index}: has no weight_map from tensor names to files")
    shards = []
    for name in sorted(set(weight_map.values())):
        if Path(name).name != name:
            raise FormatError(f"{index}: names the shard {name!r}, which is not a plain file name")
        if not (directory / name).is_file():
            raise FormatError(f"{directory / name}: is named by {index.name} and is missing")
        shards.append(directory / name)
    return shards


def _check_index(directory: Path, owner: dict[str, SafetensorsFile]) -> None:
    """Check that each tensor that the index names is in the shard that it names."""
    for index in directory.glob(f"*{INDEX_SUFFIX}"):
        for name, shard in read_json(index)["weight_map"].items():
            if name not in owner or owner[name].path.name != shard:
                raise FormatError(
                    f"{index}: says that {name} is in {shard}, and it is not there; "
                    "the checkpoint is incomplete, fetch it again"
                )


def _unique_owners(files: Sequence[SafetensorsFile]) -> dict[str, SafetensorsFile]:
    owner: dict[str, SafetensorsFile] = {}
    for file in files:
        for tensor in file.tensors:
            if tensor.name in owner:
                raise FormatError(
                    f"{file.path}: holds {tensor.name}, and so does {owner[tensor.name].path.name}"
                )
            owner[tensor.name] = file
    return owner


def _is_companion(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    index = path.name.endswith(".index.json")
    return not hidden and not index and path.suffix not in _WEIGHTS and str(path) != CONFIG_FILE
