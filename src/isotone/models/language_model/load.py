"""Loads a causal language model of transformers: from its files, or from tensors given by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from isotone.errors import InputError
from isotone.models.language_model.files import ModelFiles, load_config
from isotone.models.plugin.config import IsotoneConfig
from isotone.models.transformers_calls import one_line, quiet_transformers, transformers_errors

DTYPES = ("float32", "bfloat16", "float16", "auto")
"""The dtypes that a model can be loaded in; `auto` is the one that its config names."""


def load_model(
    files: ModelFiles, *, dtype: str = "float32", device: str = "cpu", residency: str = "dense"
) -> transformers.PreTrainedModel:
    """Load a model in evaluation mode.

    Parameters
    ----------
    files : ModelFiles
        The model's files.
    dtype : str
        One of `DTYPES`.
    device : str
        The device as torch names it: "cpu", "cuda", "cuda:1".
    residency : str
        `dense`, or for a clustered model `packed`: see `isotone.IsotoneConfig`.

    Returns
    -------
    transformers.PreTrainedModel
        The causal language model.

    Raises
    ------
    InputError
        If the dtype or the device is unknown, transformers cannot load the model, or weights are
        missing, which transformers would make up.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
    options: dict[str, Any] = {}
    if _device(device).type != "cpu":
        options["device_map"] = {"": device}
    if residency != "dense":
        options["quantization_config"] = IsotoneConfig(residency=residency)
    return causal_language_model(files.directory, dtype=dtype, **options)


def causal_language_model(
    directory: Path, *, tensors: dict[str, Any] | None = None, **options: Any
) -> Any:
    """Have transformers load the causal language model of a directory, in evaluation mode.

    Parameters
    ----------
    directory : Path
        The model directory, on this machine.
    tensors : dict of str to torch.Tensor, optional
        The tensors by their names in the checkpoint, to load instead of those of the directory.
        They may be lazy (see `isotone.models.lazy.stored`), and then the model's parameters are.
    **options
        Further arguments of `from_pretrained`: dtype, device_map, quantization_config.

    Returns
    -------
    transformers.PreTrainedModel
        The model.

    Raises
    ------
    InputError
        If transformers cannot load it, or weights are missing, which transformers would make up.
    """
    failure = f"{directory}: transformers cannot load it as a language model"
    with quiet_transformers(), transformers_errors(failure):
        config, place = load_config(directory), directory if tensors is None else None
        kind = _kind(config)
        options |= {"trust_remote_code": False, "local_files_only": True}
        if tensors is not None:
            with torch.device("meta"):  # only from_config tells the class of the model
                kind = type(kind.from_config(config, trust_remote_code=False))
            del options["trust_remote_code"], options["local_files_only"]
            options |= {"config": config, "state_dict": tensors}
        model, report = kind.from_pretrained(place, output_loading_info=True, **options)
    if missing := sorted(report["missing_keys"]):
        raise InputError(
            f"{directory}: lacks {len(missing)} of the model's tensors, {missing[0]} for one; it "
            "is incomplete, or not a causal language model"
        )
    return model.eval()


def _kind(config: transformers.PretrainedConfig) -> Any:
    """Return the class that loads a model that writes text, also if the model sees as well."""
    writing, seeing = transformers.AutoModelForCausalLM, transformers.AutoModelForImageTextToText
    sees = type(config) in seeing._model_mapping and type(config) not in writing._model_mapping
    return seeing if sees else writing


def default_device() -> str:
    """Return where text runs through models that no user places: "cuda" if there is a GPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _device(device: str) -> torch.device:
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r}: is not available: {one_line(error)}") from error
    return place
