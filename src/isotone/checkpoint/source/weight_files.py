"""Which files of a model directory hold its weights: those that transformers would load.

A directory may hold several sets of weights: a single file, the shards of an older save with their
index, the original format of the authors, variants in other precisions. transformers takes the file
that the config names, else `model.safetensors`, else the shards of `model.safetensors.index.json`.
Where it would find nothing, the only set that there is gets taken. A set whose own names say that a
part is missing is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isotone.checkpoint.source.model_json import read_json
from isotone.errors import FormatError, InputError

CONFIG_FILE = "config.json"
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
INDEX_SUFFIX = ".safetensors.index.json"

_NAMED = "transformers_weights"
_ADAPTER = re.compile(
    r"adapter_config\.json|(\d+_)?adapters?(_model)?(-\d+-of-\d+)?\.(safetensors|bin|npz)"
    r"|pytorch_lora_weights\.(safetensors|bin)"
)
_NUMBERED = re.compile(r"(.+)-(\d+)-of-(\d+)\.safetensors")


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
        If there are several sets, and none that transformers would take.
    FormatError
        If a file of the set is missing, or its index is no index.
    """
    names = sorted(
        path.name
        for pattern in ("*.safetensors", f"*{INDEX_SUFFIX}")
        for path in directory.glob(pattern)
        if not path.name.startswith(".") and not is_adapter(path.name)
    )
    if not names:
        return None
    taken = _taken(directory, config, names)
    shards: Sequence[str] = [taken]
    index, weight_map = None, {}
    if taken.endswith(INDEX_SUFFIX):
        index = directory / taken
        weight_map = _weight_map(index)
        shards = sorted(set(weight_map.values()))
        _refuse_missing(directory, shards, index.name)
    elif _NUMBERED.fullmatch(taken):
        shards = _same_set(taken, names)
    _refuse_incomplete(directory, shards)
    reason = f"another set of weights than {taken}, which is taken"
    left_out = {name: reason for name in names if name not in {taken, *shards}}
    return WeightFiles(tuple(directory / name for name in shards), index, weight_map, left_out)


def _taken(directory: Path, config: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the single file, the index or the first shard of the set to take."""
    for name in (config.get(_NAMED), SINGLE_FILE, INDEX_FILE):
        if name in names:
            return str(name)
    indexes = [name for name in names if name.endswith(INDEX_SUFFIX)]
    sets = indexes or _first_of_each_set(names)
    if len(sets) > 1:
        what = "has more than one index" if indexes else "holds more than one set of weights"
        raise InputError(
            f"{directory}: {what} ({', '.join(sets)}), and transformers would load none of them; "
            f"keep one, or name the one to take {SINGLE_FILE}"
        )
    return sets[0]


def _first_of_each_set(names: Iterable[str]) -> list[str]:
    """Return one name of each set: a file of its own, or shards that are numbered alike."""
    first: dict[object, str] = {}
    for name in names:
        found = _NUMBERED.fullmatch(name)
        first.setdefault(found.group(1, 3) if found else name, name)
    return list(first.values())


def _same_set(shard: str, names: Iterable[str]) -> list[str]:
    numbered = {name: _NUMBERED.fullmatch(name) for name in (shard, *names)}
    sets = {name: found.group(1, 3) for name, found in numbered.items() if found}
    return sorted(name for name, its_set in sets.items() if its_set == sets[shard])


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise FormatError(f"{index}: has no weight_map from tensor names to files")
    for name in sorted(set(weight_map.values())):
        if Path(name).name != name:
            raise FormatError(f"{index}: names the shard {name!r}, which is not a plain file name")
    return weight_map


def _refuse_missing(directory: Path, shards: Iterable[str], index: str) -> None:
    for name in shards:
        if not (directory / name).is_file():
            raise FormatError(f"{directory / name}: is named by {index} and is missing")


def _refuse_incomplete(directory: Path, shards: Iterable[str]) -> None:
    """Raise FormatError if the numbers in the names of shards leave some out."""
    numbers: dict[tuple[str, str], set[int]] = {}
    for name in shards:
        found = _NUMBERED.fullmatch(name)
        if found:
            prefix, number, total = found.groups()
            numbers.setdefault((prefix, total), set()).add(int(number))
    for (prefix, total), present in numbers.items():
        first = 0 if 0 in present else 1
        n_missing = int(total) - len(present)
        if n_missing <= 0:
            continue
        missing = next(n for n in range(first, first + int(total)) if n not in present)
        name = f"{prefix}-{missing:0{len(total)}}-of-{total}.safetensors"
        raise FormatError(
            f"{directory / name}: is missing; by their names the weights are {total} files, of "
            f"which {n_missing} are not there; fetch the model again"
        )
