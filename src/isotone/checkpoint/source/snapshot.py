"""Fetches from the hub what isotone takes of a model: its small files, then one set of weights."""

from __future__ import annotations

from pathlib import Path

from isotone.checkpoint.files.hub import fetch
from isotone.checkpoint.source.companions import module_folders, weight_format
from isotone.checkpoint.source.model_json import read_json
from isotone.checkpoint.source.weight_files import (
    CONFIG_FILE,
    CONVERSION,
    INDEX_FILE,
    INDEX_SUFFIX,
    SINGLE_FILE,
    WEIGHTS_KEY,
    shards_of_index,
)
from isotone.errors import InputError

_SMALL = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja", "*.py", "LICENSE*", "README*")
_SMALL_UNWANTED = ("original/*", "checkpoint-*")
_ADAPTERS = ("*adapter*.safetensors", "pytorch_lora_weights.safetensors")
_OF_MODULES = ("safetensors", "bin")  # the suffixes of weights that modules come with


def fetch_model(hub_id: str) -> Path:
    """Return the directory of a model in the hub's cache, with all that isotone takes of it.

    Parameters
    ----------
    hub_id : str
        `org/name`, or `org/name@revision`.

    Returns
    -------
    Path
        The directory with the model's small files and adapters, with the modules in folders of
        their own, and with the set of weights that transformers would load. Other sets of weights
        and other formats are not fetched.

    Raises
    ------
    InputError
        If the hub has no such model or no safetensors of it, or cannot be reached.
    FormatError
        If the config or the index is damaged.
    """
    directory = fetch(hub_id, _SMALL, _SMALL_UNWANTED)
    modules = [f"{each}/*.{suffix}" for each in module_folders(directory) for suffix in _OF_MODULES]
    fetch(hub_id, (*_ADAPTERS, *modules), _SMALL_UNWANTED)
    named = read_json(directory / CONFIG_FILE).get(WEIGHTS_KEY)
    named = [named] if isinstance(named, str) and named.endswith(".safetensors") else []
    for name in (*named, SINGLE_FILE):
        fetch(hub_id, [name])
        if (directory / name).is_file():
            return directory
    index = directory / INDEX_FILE
    indexes = [index] if index.is_file() else sorted(directory.glob(f"*{INDEX_SUFFIX}"))
    shards = {name for each in indexes for name in shards_of_index(each)}
    fetch(hub_id, shards or ["*.safetensors"], [] if shards else ["*/*"])
    if not any(weight_format(path.name) for path in directory.iterdir()):
        raise InputError(
            f"{hub_id}: has no weights as safetensors, and isotone reads no pickles; take a "
            f"revision that has them (org/name@refs/pr/1, say), or {CONVERSION}"
        )
    return directory
