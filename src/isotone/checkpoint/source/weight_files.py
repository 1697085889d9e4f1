"""Which files of a model directory hold its weights: those that transformers would load.

A directory may hold several sets of weights: a single file, the shards of an older save with their
index, the original format of the authors, variants in other precisions. transformers takes the file
that the config names, else `model.safetensors`, else the shards of `model.safetensors.index.json`.
Where it would find nothing, the only set that there is gets taken; where it would take pickles, the
directory is refused. A set whose own names say that a part is missing is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isotone.checkpoint.files.numbered import listed, missing_names, one_of_each_set, same_set
from isotone.checkpoint.source.model_json import read_json
from isotone.errors import FormatError, InputError

WEIGHTS_KEY = "transformers_weights"
"""The key with which a config names the file that transformers loads."""

CONFIG_FILE = "config.json"
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
INDEX_SUFFIX = ".safetensors.index.json"

CONVERSION = (
    "convert the model with transformers (AutoModelForCausalLM.from_pretrained(DIR)"
    ".save_pretrained(NEW), or the class that its config names), and give NEW"
)
"""What to do with pickles that transformers reads."""

_ADAPTER = re.compile(
    r"adapter_config\.json|(\d+_)?adapters?(_model)?(-\d+-of-\d+)?\.(safetensors|bin|npz)"
    r"|pytorch_lora_weights\.(safetensors|bin)"
)
_MOST_BYTES = 255  # of a file name, on the usual file systems
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class WeightFiles:
    """The set of files that is taken, and the files of other sets.

    Attributes
    ----------
    shards : tuple of Path
        The files with the weights, ordered by name.
    index : Path or None
        The index that names them; None for a set without an index.
    weight_map : mapping of str to str
        The file of each tensor by the index; empty without an index.
    left_out : mapping of str to str
        The names of other safetensors files and indexes, and why each is left out.
    """

    shards: tuple[Path, ...]
    index: Path | None
    weight_map: Mapping[str, str]
    left_out: Mapping[str, str]


def is_adapter(name: str) -> bool:
    """Return whether a file belongs to an adapter, which is no part of the model beside it.

    Parameters
    ----------
    name : str
        Its name.

    Returns
    -------
    bool
        Whether PEFT, MLX or diffusers gives the files of adapters such a name.
    """
    return _ADAPTER.fullmatch(name) is not None


def find_weight_files(directory: Path, config: Mapping[str, Any]) -> WeightFiles | None:
    """Find the files that hold the weights of a model.

    Parameters
    ----------
    directory : Path
        The directory, on this machine or in a store.
    config : mapping
        The content of its config.json.

    Returns
    -------
    WeightFiles or None
        None if there is no safetensors file but those of adapters.

    Raises
    ------
    InputError
        If there are several sets, and none that transformers would take, or transformers would take
        pickles.
    FormatError
        If a file of the set is missing, or its index is no index.
    """
    names = sorted(
        path.name
        for pattern in ("*.safetensors", f"*{INDEX_SUFFIX}")
        for path in directory.glob(pattern)
        if not path.name.startswith(".") and not is_adapter(path.name)
    )
    taken = _taken(directory, config, names)
    if taken is None:
        return None
    shards: Sequence[str] = same_set(taken, names)
    index, weight_map = None, {}
    if taken.endswith(INDEX_SUFFIX):
        index = directory / taken
        weight_map = _weight_map(index)
        shards = sorted(set(weight_map.values()))
    _refuse_missing([directory / name for name in shards if name not in names], index)
    _refuse_incomplete(directory, shards)
    reason = f"another set of weights than {taken}, which is taken"
    left_out = {name: reason for name in names if name not in {taken, *shards}}
    return WeightFiles(tuple(directory / name for name in shards), index, weight_map, left_out)


def _taken(directory: Path, config: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Return the single file, the index or the first shard of the set to take."""
    named = config.get(WEIGHTS_KEY)
    if isinstance(named, str) and named.endswith((".safetensors", INDEX_SUFFIX)):
        if Path(named).name != named or not (directory / named).is_file():
            raise FormatError(
                f"{directory}: has no file {named}, which {CONFIG_FILE} names as the one to load "
                f"({WEIGHTS_KEY}); fetch it, or remove that line"
            )
        return named
    for name in (SINGLE_FILE, INDEX_FILE):
        if name in names:
            return name
    pickle = next((name for name in _PICKLES if (directory / name).is_file()), None)
    if pickle is not None and names:
        raise InputError(
            f"{directory}: transformers would load {pickle}, a pickle, which is not read, and not "
            f"{names[0]}; {CONVERSION}, or remove it"
        )
    indexes = [name for name in names if name.endswith(INDEX_SUFFIX)]
    sets = indexes or one_of_each_set(names)
    if len(sets) > 1:
        what = "has more than one index" if indexes else "holds more than one set of weights"
        raise InputError(
            f"{directory}: {what} ({listed(sets, len(sets))}), and transformers would load none of "
            f"them; keep one, or name the one to take {SINGLE_FILE}"
        )
    return sets[0] if sets else None


def shards_of_index(index: Path) -> list[str]:
    """Return the names of the files that an index names.

    Parameters
    ----------
    index : Path
        The index.

    Returns
    -------
    list of str
        In ascending order.

    Raises
    ------
    FormatError
        If it is no index.
    """
    return sorted(set(_weight_map(index).values()))


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(name, str) for name in weight_map.values())
    ):
        raise FormatError(f"{index}: has no weight_map from tensor names to files")
    for name in sorted(set(weight_map.values())):
        if Path(name).name != name or len(name.encode()) > _MOST_BYTES:
            raise FormatError(
                f"{index}: names the shard {name[:_MOST_BYTES]!r}, which is not a plain file name"
            )
        if not name.endswith(".safetensors"):
            raise FormatError(f"{index}: names the shard {name!r}, which is no .safetensors file")
    return weight_map


def _refuse_missing(unseen: Sequence[Path], index: Path | None) -> None:
    """Raise FormatError if shards that the index names are missing."""
    missing = [path for path in unseen if not path.is_file()]
    if missing:
        assert index is not None  # without an index, shards are taken from those that are there
        raise _missing(
            missing[0].parent, [path.name for path in missing], len(missing), f"by {index.name}"
        )


def _refuse_incomplete(directory: Path, shards: Sequence[str]) -> None:
    """Raise FormatError if the numbers in the names of shards leave some out."""
    missing, n_missing = missing_names(shards)
    if missing:
        raise _missing(directory, missing, n_missing, "as a part by the files beside it")


def _missing(directory: Path, names: Sequence[str], n_missing: int, by: str) -> FormatError:
    first, *others = names
    more = f", {listed(others, n_missing - 1)}" if others else ""
    verb = "are" if others else "is"
    return FormatError(
        f"{directory / first}{more}: {verb} named {by} and {verb} missing; fetch the model again"
    )
