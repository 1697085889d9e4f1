"""Finds what a user means by MODEL, and registers the kinds of sources that isotone opens."""

from __future__ import annotations

import re
from pathlib import Path

from isotone.checkpoint.compressed.dense_folder import hold_dense_weights
from isotone.checkpoint.compressed.manifest import QUANT_METHOD
from isotone.checkpoint.files.location import is_remote, locate_found
from isotone.checkpoint.source.companions import weight_format
from isotone.checkpoint.source.model_directory import ModelDirectory, SingleFile
from isotone.checkpoint.source.quantized import quantized_format
from isotone.checkpoint.source.registry import find_kind, register_source
from isotone.checkpoint.source.snapshot import fetch_model
from isotone.checkpoint.source.source import Source
from isotone.checkpoint.source.unread import PICKLES, adapter_alone
from isotone.checkpoint.source.weight_files import CONVERSION
from isotone.errors import InputError

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_ADAPTED = re.compile(r"\.lora_|\.hada_|\.lokr_|\.oft_|\.ia3_|lora_(up|down)|\.alpha$")
_FILE_SUFFIXES = {".safetensors", ".gguf"}


def open_source(model: str | Path) -> Source:
    """Open a model.

    Parameters
    ----------
    model : str or Path
        A model directory, a .safetensors or .gguf file, a hub id (`org/name[@revision]`), or what a
        registered kind of source accepts. A directory or .safetensors file may be in a store
        (`s3://...`).

    Returns
    -------
    Source
        The open model; no weights are read yet.

    Raises
    ------
    InputError
        If no kind of source accepts the model.
    FormatError
        If a file of the model is damaged.
    """
    path = locate_found(model)
    kind = find_kind(str(model), path)
    if kind is not None:
        return kind.open(str(model), path)
    if path.is_file():
        raise _unreadable(path)
    raise InputError(
        f"{model}: no such file or directory; expected a model directory, a .safetensors or .gguf "
        "file, or a hub id such as org/name"
    )


def refuse_unfit(source: Source, model: str | Path) -> None:
    """Raise an error if a model holds other weights than its original ones.

    Parameters
    ----------
    source : Source
        The open model.
    model : str or Path
        What the user called it, for the message.

    Raises
    ------
    InputError
        If it is quantized, as its config, a file beside it or its tensors say; or if it holds
        nothing but an adapter.
    """
    directory = source.directory if isinstance(source, ModelDirectory) else None
    found = quantized_format(source.config, directory, source.tensors)
    if found == QUANT_METHOD and isinstance(source, ModelDirectory):
        found = None if hold_dense_weights(file.path for file in source.files) else found
    if found is not None:
        raise InputError(
            f"{model}: is quantized already ({found}); expected a model with its original weights"
        )
    if source.tensors and all(_ADAPTED.search(tensor.name) for tensor in source.tensors):
        raise adapter_alone(Path(model))


def runnable(source: Source) -> ModelDirectory:
    """Return a source as a model directory that transformers can run.

    Parameters
    ----------
    source : Source
        The open model.

    Returns
    -------
    ModelDirectory
        The same source.

    Raises
    ------
    InputError
        If it is a single file, or not on this machine.
    """
    if not isinstance(source, ModelDirectory) or is_remote(source.directory):
        raise InputError(
            "calibrating runs the model; expected a model directory on this machine, not a single "
            "file or a URL"
        )
    return source


def _is_hub_id(model: str, path: Path) -> bool:
    looks_local = model.startswith((".", "/", "~")) or path.suffix in _FILE_SUFFIXES
    return not looks_local and _HUB_ID.fullmatch(model) is not None and not path.exists()


@register_source("hub", accepts=_is_hub_id, fallback=True)
def _open_hub_id(model: str, path: Path) -> Source:  # noqa: ARG001 (no path)
    return ModelDirectory(fetch_model(model))


@register_source(
    "gguf", accepts=lambda _, path: path.suffix == ".gguf" and path.is_file(), fallback=True
)
def _open_gguf(model: str, path: Path) -> Source:  # noqa: ARG001 (its path says it)
    if is_remote(path):
        raise InputError(f"{path}: GGUF is read from this machine's disks only; fetch it first")
    from isotone.models.gguf.source import open_gguf

    return open_gguf(path)


@register_source(
    "safetensors",
    accepts=lambda _, path: path.suffix == ".safetensors" and path.is_file(),
    fallback=True,
)
def _open_safetensors(model: str, path: Path) -> Source:  # noqa: ARG001 (its path says it)
    return SingleFile(path)


@register_source("directory", accepts=lambda _, path: path.is_dir(), fallback=True)
def _open_directory(model: str, path: Path) -> Source:  # noqa: ARG001 (its path says it)
    return ModelDirectory(path)


def _unreadable(path: Path) -> InputError:
    if path.suffix in PICKLES:
        return InputError(f"{path}: is a pickle, which can run code and is not read; {CONVERSION}")
    kind = weight_format(path.name)
    if kind is not None:
        return InputError(
            f"{path}: holds weights as {kind}, which isotone does not read; fetch or save the "
            "model as safetensors"
        )
    return InputError(f"{path}: expected a directory, a .safetensors or a .gguf file")
