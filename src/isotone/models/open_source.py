"""Finds what a user means by MODEL."""

from __future__ import annotations

import re
from pathlib import Path

from isotone.checkpoint.files.hub import download
from isotone.checkpoint.files.location import is_remote, locate_found
from isotone.checkpoint.source.model_directory import ModelDirectory, SingleFile
from isotone.checkpoint.source.source import Source
from isotone.errors import InputError

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}


def open_source(model: str | Path) -> Source:
    """Open a model directory, a .safetensors or .gguf file, or a hub id (`org/name[@revision]`).

    The directory or .safetensors file may be in a store (`s3://...`).

    Raises InputError where it is none of these, and as the readers of each do.
    """
    path = locate_found(model)
    if path.is_dir():
        return ModelDirectory(path)
    if path.is_file():
        return _open_file(path)
    looks_local = str(model).startswith((".", "/", "~")) or path.suffix in {".safetensors", ".gguf"}
    if not looks_local and _HUB_ID.fullmatch(str(model)):
        return ModelDirectory(download(str(model)))
    raise InputError(
        f"{model}: no such file or directory; expected a model directory, a .safetensors or .gguf "
        "file, or a hub id such as org/name"
    )


def refuse_quantized(source: Source, model: str | Path) -> None:
    """Raise InputError for a model that holds other weights than its original ones."""
    quantization = source.config.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise InputError(
            f"{model}: is quantized already ({method or 'unknown method'}); expected a model with "
            "its original weights"
        )


def runnable(source: Source) -> ModelDirectory:
    """A source that transformers can run; raises InputError for any other."""
    if not isinstance(source, ModelDirectory) or is_remote(source.directory):
        raise InputError(
            "calibrating runs the model; expected a model directory on this machine, not a single "
            "file or a URL"
        )
    return source


def _open_file(path: Path) -> Source:
    if path.suffix == ".safetensors":
        return SingleFile(path)
    if path.suffix == ".gguf" and is_remote(path):
        raise InputError(f"{path}: GGUF is read from this machine's disks alone; fetch it first")
    if path.suffix == ".gguf":
        from isotone.models.gguf.source import open_gguf

        return open_gguf(path)
    if path.suffix in _PICKLE_SUFFIXES:
        raise InputError(
            f"{path}: is a pickle, which can run code and is not read; convert it with "
            "transformers: AutoModel.from_pretrained(DIR).save_pretrained(NEW)"
        )
    raise InputError(f"{path}: expected a directory, a .safetensors or a .gguf file")
