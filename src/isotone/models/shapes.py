"""A model that is only a config: its tensors' names, dtypes and shapes, and no weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.model_directory import CONFIG_FILE, read_json
from isotone.checkpoint.source.source import CompanionFile
from isotone.errors import FormatError, InputError, MissingExtraError
from isotone.plan.tensors import n_matrices

_TAGS = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


class Shapes:
    """What a config describes, as a source to plan with; nothing can be read."""

    companions: Sequence[CompanionFile] = ()
    skipped: Sequence[str] = ()

    def __init__(self, directory: Path) -> None:
        """Raises InputError where transformers makes no model of the directory's config."""
        self.directory = directory
        self.config: dict[str, Any] = read_json(directory / CONFIG_FILE)

    @cached_property
    def tensors(self) -> Sequence[TensorInfo]:
        """Experts one by one, as checkpoints hold them, though transformers fuses them."""
        return [each for tensor in _parameters(self.directory) for each in _unstacked(tensor)]

    @property
    def n_bytes(self) -> int:
        return sum(tensor.n_bytes for tensor in self.tensors)

    def read(self, tensor: TensorInfo, start: int, stop: int) -> NDArray[np.uint8]:
        raise FormatError(
            f"{self.directory}: has no weights, {start} to {stop} of {tensor.name} were asked for"
        )

    def forget(self, tensor: TensorInfo, start: int, stop: int) -> None:
        pass

    def identity(self) -> dict[str, Any]:
        return {}


def _parameters(directory: Path) -> list[TensorInfo]:
    try:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM
    except ImportError:
        raise MissingExtraError(f"{directory}: planning by a config", "models") from None
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # transformers raises most kinds, for most causes
        raise InputError(
            f"{directory / CONFIG_FILE}: transformers makes no language model of it: "
            f"{(str(error).strip() or type(error).__name__).splitlines()[0]}"
        ) from error
    tag = _TAGS.get(str(config.dtype).removeprefix("torch."), "BF16")
    return [TensorInfo(name, tag, tuple(p.shape)) for name, p in model.named_parameters()]


def _unstacked(tensor: TensorInfo) -> Iterator[TensorInfo]:
    n = n_matrices(tensor)
    if n == 1:
        yield tensor
        return
    module, _, parameter = tensor.name.rpartition(".")
    for i in range(n):
        yield TensorInfo(f"{module}.{i}.{parameter}", tensor.dtype, tensor.shape[1:])
