"""A dense model on disk as Hugging Face lays it out: a directory, or a single safetensors file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.files.location import fingerprints, is_remote
from isotone.checkpoint.files.numbered import NumberedName
from isotone.checkpoint.files.safetensors_reader import SafetensorsFile
from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.companions import OtherFiles, find_other_files
from isotone.checkpoint.source.index_check import refuse_absent
from isotone.checkpoint.source.model_json import read_json
from isotone.checkpoint.source.source import CompanionFile
from isotone.checkpoint.source.unread import no_weights
from isotone.checkpoint.source.weight_files import CONFIG_FILE, find_weight_files
from isotone.errors import FormatError, InputError


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
    left_out: Mapping[str, str] = {}

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
        If the directory has no weights as safetensors, or several sets none of which transformers
        would load.
    FormatError
        If a shard is missing or damaged, or the index does not fit the shards.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        weights = find_weight_files(directory, self.config)
        if weights is None:
            raise no_weights(directory)
        super().__init__([SafetensorsFile.open(path) for path in weights.shards])
        self._weights = weights
        owners = {name: file.path.name for name, file in self._file_of.items()}
        refuse_absent(weights, owners, self)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of config.json; empty if there is none."""
        return read_json(self.directory / CONFIG_FILE)

    @property
    def companions(self) -> Sequence[CompanionFile]:
        """The other files that go along with the weights."""
        return self._others.companions

    @property
    def left_out(self) -> Mapping[str, str]:  # type: ignore[override]
        """The files that do not go along, by name, and why each does not."""
        return {**self._weights.left_out, **self._others.left_out}

    @cached_property
    def _others(self) -> OtherFiles:
        index = [] if self._weights.index is None else [self._weights.index]
        known = [*(path.name for path in (*self._weights.shards, *index)), *self._weights.left_out]
        return find_other_files(self.directory, dict.fromkeys(known))

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
    InputError
        If the file is one of several that hold a model, as its name says.
    FormatError
        If the file is damaged.
    """

    companions: Sequence[CompanionFile] = ()

    def __init__(self, path: Path) -> None:
        numbered = NumberedName.parse(path.name)
        if numbered is not None and numbered.total > 1:
            raise InputError(
                f"{path}: is one of {numbered.total} files of a model, as its name says; give the "
                "directory that holds all of them"
            )
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
