"""Which other files of a model directory go along with its weights, and which are left out.

Everything goes along bit for bit: tokenizer, licence, adapters, and the modules in folders of their
own that belong to a model of several (sentence-transformers, diffusers). Left out, by name, are the
same weights in other formats, copies and backups of weights, whole checkpoints that training left
behind, and what isotone wrote for earlier weights of the directory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from isotone.checkpoint.files.lfs import refuse_pointer_file
from isotone.checkpoint.files.location import is_remote
from isotone.checkpoint.source.model_json import read_json, read_json_list
from isotone.checkpoint.source.source import CompanionFile
from isotone.checkpoint.source.weight_files import CONFIG_FILE, is_adapter

MANIFEST_FILE = "isotone.json"
"""The file that makes a directory one that isotone wrote."""

_FORMATS = {
    ".bin": "PyTorch",
    ".pt": "PyTorch",
    ".pth": "PyTorch",
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".ckpt": "PyTorch or TensorFlow",
    ".safetensors": "safetensors",
    ".gguf": "GGUF",
    ".ggml": "GGML",
    ".llamafile": "llamafile",
    ".h5": "TensorFlow",
    ".keras": "Keras",
    ".pb": "TensorFlow",
    ".tflite": "TensorFlow Lite",
    ".msgpack": "Flax",
    ".onnx": "ONNX",
    ".ort": "ONNX",
    ".onnx_data": "ONNX",
    ".ot": "Rust",
    ".npz": "NumPy or MLX",
    ".mlmodel": "Core ML",
    ".nemo": "NeMo",
    ".engine": "TensorRT",
}
_BACKUP = re.compile(r"(\.bak|\.backup|\.old|\.orig|\.copy|\.tmp|\.\d+|~|\.lock|\.incomplete)+$")
_CHECKPOINT = re.compile(r"checkpoint-\d+")
_MODULE_LISTS = ("modules.json", "model_index.json")
_ORIGINAL = "original"  # the folder of the authors' own format of the same weights
_MODULE_CONFIGS = (CONFIG_FILE, "adapter_config.json")


@dataclass(frozen=True)
class OtherFiles:
    """The files of a model directory that hold none of its weights.

    Attributes
    ----------
    companions : list of CompanionFile
        The files that go along, in the order of their names.
    left_out : dict of str to str
        The names of files, or of folders with a final slash, and why each is left out.
    """

    companions: list[CompanionFile] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def find_other_files(directory: Path, weights: Mapping[str, object]) -> OtherFiles:
    """Divide the files of a model directory into those that go along and those that do not.

    Parameters
    ----------
    directory : Path
        The directory, on this machine or in a store.
    weights : mapping of str
        The names of the files that are accounted for: weights, their index, and files of other sets
        of weights.

    Returns
    -------
    OtherFiles
        Without config.json, which is written anew, and without hidden files.

    Raises
    ------
    FormatError
        If a list of modules is not valid JSON, or a file that goes along is a Git LFS pointer.
    """
    names = _visible_files(directory)
    modules = _Modules.of(directory, names)
    found = OtherFiles()
    for name, path in names.items():
        if str(name) in weights or str(name) == CONFIG_FILE:
            continue
        what, reason = _reason(name, modules)
        if reason is None:
            if not is_remote(path):
                refuse_pointer_file(path)
            found.companions.append(CompanionFile(str(name), path))
        else:
            found.left_out[what] = reason
    return found


def module_folders(directory: Path) -> list[str]:
    """Return the folders of a model directory that hold modules of their own.

    Parameters
    ----------
    directory : Path
        The directory; only its small files need be there.

    Returns
    -------
    list of str
        Their paths relative to the directory, with forward slashes.

    Raises
    ------
    FormatError
        If a list of modules is not valid JSON.
    """
    modules = _Modules.of(directory, _visible_files(directory))
    return sorted(map(str, modules.listed | modules.configured))


def _visible_files(directory: Path) -> dict[PurePosixPath, Path]:
    """Return all files under a directory that are not hidden, by their relative paths."""
    return {
        name: path
        for path in sorted(directory.rglob("*"))
        for name in (PurePosixPath(path.relative_to(directory).as_posix()),)
        if not any(part.startswith(".") for part in name.parts) and path.is_file()
    }


def weight_format(name: str) -> str | None:
    """Return the format of a file that holds weights, by its name.

    Parameters
    ----------
    name : str
        The name of a file; what backups append to it is not looked at.

    Returns
    -------
    str or None
        None for any other file.
    """
    plain = _BACKUP.sub("", name.lower().removesuffix(".index.json"))
    plain = re.sub(r"\.(onnx[._]data)(_\d+)?$", ".onnx_data", plain)
    if plain.startswith("openvino") and plain.endswith((".xml", ".bin")):
        return "OpenVINO"
    return _FORMATS.get(PurePosixPath(plain).suffix)


def _reason(name: PurePosixPath, modules: _Modules) -> tuple[str, str | None]:
    """Return what to call a file and why it is left out; None where it goes along."""
    for parent in reversed(name.parents):
        if _CHECKPOINT.fullmatch(parent.name):
            return f"{parent}/", "a checkpoint that training left behind"
        if parent.suffix == ".mlpackage":
            return f"{parent}/", "the weights in another format (Core ML)"
    if modules.own(name):
        return str(name), None
    if str(name) == MANIFEST_FILE:
        return str(name), "what isotone wrote for other weights"
    if is_adapter(str(name)):
        return str(name), None
    kind = weight_format(name.name)
    if kind is None:
        return str(name), None
    if _BACKUP.search(name.name) or (kind == "safetensors" and name.name.endswith(".json")):
        return str(name), f"a copy of weights ({kind})"
    return str(name), f"weights in another format ({kind})" if kind != "safetensors" else (
        "weights of no module that the model names"
    )


@dataclass(frozen=True)
class _Modules:
    """The folders that hold modules: those that a list names, and those with a config of their own.

    Exporters put a config beside the same weights in another format (`onnx/`), so of a folder that
    no list names only the formats that transformers loads count as a module's.
    """

    listed: frozenset[PurePosixPath]
    configured: frozenset[PurePosixPath]

    @classmethod
    def of(cls, directory: Path, names: Iterable[PurePosixPath]) -> _Modules:
        root = PurePosixPath()
        configured = {name.parent for name in names if name.name in _MODULE_CONFIGS}
        listed = {
            PurePosixPath(each)
            for listing in _MODULE_LISTS
            if PurePosixPath(listing) in set(names)
            for each in _listed(directory / listing)
        }
        others = {path for path in configured if path.name != _ORIGINAL}
        return cls(frozenset(listed - {root}), frozenset(others - {root}))

    def own(self, name: PurePosixPath) -> bool:
        """Return whether a file belongs to a module."""
        if not self.listed.isdisjoint(name.parents):
            return True
        loaded = weight_format(name.name) in (None, "safetensors", "PyTorch")
        return loaded and not self.configured.isdisjoint(name.parents)


def _listed(path: Path) -> list[str]:
    """Return the folders that sentence-transformers' or diffusers' list of modules names."""
    if path.name == "model_index.json":
        return [name for name, value in read_json(path).items() if isinstance(value, list)]
    listed = (each for each in read_json_list(path) if isinstance(each, dict))
    return [str(each["path"]) for each in listed if each.get("path")]
