"""A model that is only a config: its tensors' names, dtypes and shapes, and no weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.model_json import read_json
from isotone.checkpoint.source.source import CompanionFile
from isotone.checkpoint.source.weight_files import CONFIG_FILE
from isotone.errors import FormatError
from isotone.models.transformers_calls import require_transformers, transformers_errors
from isotone.plan.tensors import n_matrices

_TAGS = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


class Shapes:
    """What a config describes, as a source to plan with; nothing can be read.

    Parameters
    ----------
    directory : Path
        A directory with a config.json.
    """

    companions: Sequence[CompanionFile] = ()
    skipped: Sequence[str] = ()
    left_out: Mapping[str, str] = {}

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config: dict[str, Any] = read_json(directory / CONFIG_FILE)

    @cached_property
    def tensors(self) -> Sequence[TensorInfo]:
        """The tensors of the model, its experts one by one as checkpoints hold them.

        Raises InputError if transformers makes no model of the config.
        """
        return [each for tensor in _parameters(self.directory) for each in _unstacked(tensor)]

    @property
    def n_bytes(self) -> int:
        """The bytes that the dense tensors would take."""
        return sum(tensor.n_bytes for tensor in self.tensors)

    def read(self, tensor: TensorInfo, start: int, stop: int) -> NDArray[np.uint8]:
        """Raise an error, because there are no weights.

        Parameters
        ----------
        tensor : TensorInfo
            One of `tensors`.
        start, stop : int
            The range in elements.

        Returns
        -------
        uint8 array
            Never.

        Raises
        ------
        FormatError
            If it is called.
        """
        raise FormatError(
            f"{self.directory}: has no weights, {start} to {stop} of {tensor.name} were asked for"
        )

    def forget(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Do nothing, because nothing is read.

        Parameters
        ----------
        tensor : TensorInfo
            One of `tensors`.
        start, stop : int
            The range in elements.
        """

    def identity(self) -> dict[str, Any]:
        """Return an empty dict: no run shares work by a config."""
        return {}


def _parameters(directory: Path) -> list[TensorInfo]:
    """Return the parameters of the model that transformers makes of a config."""
    require_transformers(f"{directory}: planning by a config")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    failure = f"{directory / CONFIG_FILE}: transformers makes no language model of it"
    with transformers_errors(failure), torch.device("meta"):
        config = AutoConfig.from_pretrained(
            directory, trust_remote_code=False, local_files_only=True
        )
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    tag = _TAGS.get(str(config.dtype).removeprefix("torch."), "BF16")
    return [TensorInfo(name, tag, tuple(p.shape)) for name, p in model.named_parameters()]


def _unstacked(tensor: TensorInfo) -> Iterator[TensorInfo]:
    """Yield a stack of experts as one tensor for each expert; any other tensor as it is."""
    n = n_matrices(tensor)
    if n == 1:
        yield tensor
        return
    module, _, parameter = tensor.name.rpartition(".")
    for i in range(n):
        yield TensorInfo(f"{module}.{i}.{parameter}", tensor.dtype, tensor.shape[1:])
