"""Weights or codebooks of a model in memory, replaced for the length of a `with`.

Whatever happens inside, the model comes out of it bit for bit as it went in. Values are copied into
the tensors that are there, so hooks, optimizers and tied modules that hold them see the change and
its end. Studies are built on this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from isotone.core.clustered_tensor import ClusteredTensor
from isotone.core.values import check_codebook
from isotone.errors import InputError
from isotone.models.lazy.expression import Expression
from isotone.models.packed.hosting import CLUSTERED_CHILD
from isotone.models.packed.modules import hosts
from isotone.models.packed.weight import ClusteredWeight
from isotone.models.plugin.origin import parameter_sources

CodebookEdit: TypeAlias = Callable[[ClusteredTensor], Any] | NDArray[np.float32] | torch.Tensor
WeightEdit: TypeAlias = Callable[[torch.Tensor], torch.Tensor] | torch.Tensor


@contextmanager
def swapped(
    model: nn.Module,
    edits: Mapping[str, CodebookEdit | WeightEdit],
    of: Literal["codebook", "weight"] = "codebook",
) -> Iterator[list[str]]:
    """Edit chosen matrices of a model inside a `with`, and put them back at its end.

    The model comes out bit for bit as it went in, also after an exception. Tied weights are edited
    once.

    Parameters
    ----------
    model : torch.nn.Module
        A model in memory. For codebooks it must have been loaded from a compressed directory, dense
        or packed; weights of any model can be edited.
    edits : dict of str to array, tensor or function
        By globs on names: what takes the place of the matrices that match. Names are those of the
        model or of its checkpoint, with or without `.weight`; where several globs match a matrix
        the last one counts. What is given depends on `of`.
    of : {"codebook", "weight"}
        `codebook`: a float32 codebook, `[k]` or `[matrices, k]`, or a function that makes one of
        the `ClusteredTensor` (whose `counts` are the numbers of weights of each centroid). Weights
        of a dense model are decoded from its directory with the new codebook.
        `weight`: a tensor in the shape of the weight, or a function that makes one of a copy of the
        present weight. Packed weights have no weight to edit.

    Yields
    ------
    list of str
        The names of the matrices that were edited.

    Raises
    ------
    InputError
        If a glob matches nothing, a value has another shape or is not finite, or the model does not
        have what is to be edited.
    FormatError
        If the model's directory is damaged.

    Notes
    -----
    Memory: a copy of every dense weight that is edited; of packed ones, of their codebooks. An edit
    given as a function needs the ranks of one tensor at a time, a byte for each weight. The ranks
    of a dense model are read from its directory, unless `hold_ranks` keeps them in memory.

    Examples
    --------
    Sort the codebooks of one layer in descending order, and run the model::

        with isotone.swapped(model, {"model.layers.8.*": lambda t: t.codebook[..., ::-1].copy()}):
            logits = model(tokens).logits
    """
    if of not in ("codebook", "weight"):
        raise InputError(f"of is {of!r}; expected 'codebook' or 'weight'")
    names: list[str] = []
    with ExitStack() as undo:
        for name, tensor, value in _changes(model, edits, of):
            undo.callback(_put, tensor, tensor.detach().clone())
            _put(tensor, value)
            names.append(name)
        yield names


def hold_ranks(model: nn.Module) -> dict[str, ClusteredWeight]:
    """Keep the ranks of a dense model in memory, so that swapping neither reads nor unpacks them.

    This is for code that swaps many times.

    Parameters
    ----------
    model : torch.nn.Module
        A model that was loaded from a compressed directory with residency `dense`.

    Returns
    -------
    dict of str to ClusteredWeight
        The clustered weights by their names in the checkpoint; they are not to be changed.

    Raises
    ------
    InputError
        If the model was not loaded from a compressed directory.
    FormatError
        If that directory is damaged.

    Notes
    -----
    The ranks take a byte for each weight.
    """
    leaves = {leaf for source in parameter_sources(model).values() for leaf in source.leaves()}
    return {leaf.name: leaf.hold() for leaf in sorted(leaves, key=lambda leaf: str(leaf.name))}


def clustered_tensors(model: nn.Module) -> dict[str, Callable[[], ClusteredTensor]]:
    """Return how to read each clustered tensor of a model, by its name in the checkpoint.

    Parameters
    ----------
    model : torch.nn.Module
        A model that was loaded from a clustered directory, dense or packed.

    Returns
    -------
    dict of str to callable
        Functions that give the tensor as plain data, one byte for each weight. That of a packed
        weight is read from the model, with its codebook as it is now; that of a dense weight from
        the directory.

    Raises
    ------
    InputError
        If the model was not loaded from a clustered directory.
    """
    packed = [held.source for _, held in hosts(model)]
    leaves = {leaf for source in packed for leaf in source.leaves()}
    if packed:
        return {leaf.name: leaf.clustered_tensor for leaf in sorted(leaves, key=_name_of)}
    leaves = {leaf for source in parameter_sources(model).values() for leaf in source.leaves()}
    return {leaf.name: _reading(leaf) for leaf in sorted(leaves, key=_name_of)}


def _reading(leaf: Any) -> Callable[[], ClusteredTensor]:
    return lambda: leaf.read().clustered_tensor()


def _name_of(leaf: Any) -> str:
    return str(leaf.name)


Change = tuple[str, torch.Tensor, torch.Tensor]
"""The name of a matrix, the tensor in the model, and what to write to it."""


def _changes(model: Any, edits: Mapping[str, Any], of: str) -> Iterator[Change]:
    """Yield the changes one by one, each made when it is asked for."""
    if of == "weight":
        return _of_weights(model, edits)
    packed = [(name, held.source) for name, held in hosts(model)]
    if packed:
        return _of_packed(packed, edits)
    return _of_dense(model, edits)


def _of_weights(model: nn.Module, edits: Mapping[str, WeightEdit]) -> Iterator[Change]:
    """Yield the changes of dense weights."""
    packed = [name for name, _ in hosts(model)]
    for glob in edits:
        found = [name for name in packed if _matches(name, glob)]
        if found:
            raise InputError(
                f"{found[0]} is packed, so it has no weight to swap: swap its codebook, or load "
                "the model dense"
            )
    names: dict[torch.Tensor, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if CLUSTERED_CHILD not in name.split("."):
            names.setdefault(parameter, []).append(name)
    for parameter, edit in _chosen(names, edits).items():
        name = names[parameter][0]
        value = edit(parameter.detach().clone()) if callable(edit) else edit
        if not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
            raise InputError(
                f"{name}: {_described(value)} was given for a weight; expected a tensor of shape "
                f"{tuple(parameter.shape)}"
            )
        yield name, parameter, value


def _of_packed(
    packed: list[tuple[str, Expression]], edits: Mapping[str, CodebookEdit]
) -> Iterator[Change]:
    """Yield the changes of codebooks that are parameters of the model."""
    for leaf, edit in _chosen(_leaf_names(packed), edits).items():
        yield leaf.name, leaf.codebook, torch.from_numpy(_edited(leaf, edit))


def _of_dense(model: Any, edits: Mapping[str, CodebookEdit]) -> Iterator[Change]:
    """Yield the changes of dense weights that follow from edits of their codebooks."""
    sources = parameter_sources(model)
    chosen = _chosen(_leaf_names(list(sources.items())), edits)

    def decode(unread: Any) -> torch.Tensor:
        weight: ClusteredWeight = unread.read()
        if unread not in chosen:
            return weight()
        before = weight.codebook.detach().clone()
        _put(weight.codebook, torch.from_numpy(_edited(weight, chosen[unread])))
        try:
            return weight()
        finally:
            _put(weight.codebook, before)  # it may be one that is held, see hold_ranks

    done: set[torch.Tensor] = set()
    for name, source in sources.items():
        parameter = model.get_parameter(name)
        if parameter not in done and any(leaf in chosen for leaf in source.leaves()):
            done.add(parameter)
            yield name, parameter, source.evaluate(decode)


def _leaf_names(sources: list[tuple[str, Expression]]) -> dict[Any, list[str]]:
    """Return the names of each leaf: its own, and those of the parameters that are made of it."""
    names: dict[Any, list[str]] = {}
    for name, source in sources:
        for leaf in source.leaves():
            names.setdefault(leaf, [leaf.name]).append(name)
    return names


def _edited(weight: ClusteredWeight, edit: CodebookEdit) -> NDArray[np.float32]:
    """Return the new codebook of a weight, checked."""
    value = edit(weight.clustered_tensor()) if callable(edit) else edit
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray):
        raise InputError(f"{weight.name}: {_described(value)} was given for a codebook")
    try:
        check_codebook(value, tuple(weight.codebook.shape))
        return value
    except InputError as error:
        raise InputError(f"{weight.name}: {error}") from error


def _chosen(names: Mapping[Any, list[str]], edits: Mapping[str, Any]) -> dict[Any, Any]:
    """Return the edit of each matrix that has one; `names` are those that each goes by."""
    chosen = {}
    exactly: dict[str, list[Any]] = {}
    for matrix, known in names.items():
        for name in known:
            exactly.setdefault(name, []).append(matrix)
    for glob, edit in edits.items():
        found = exactly.get(glob) or [  # many exact names, each held against all, would be slow
            matrix for matrix, known in names.items() if any(_matches(n, glob) for n in known)
        ]
        if not found:
            example = next(iter(names.values()), ["none at all"])[0]
            raise InputError(
                f"{glob!r} matches none of the {len(names)} matrices that can be swapped; one of "
                f"them is {example}"
            )
        chosen.update(dict.fromkeys(found, edit))
    return chosen


def _matches(name: str, glob: str) -> bool:
    return fnmatchcase(name, glob) or fnmatchcase(name.removesuffix(".weight"), glob)


def _described(value: object) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"a {type(value).__name__} of {tuple(shape)}"


@torch.no_grad()  # type: ignore[untyped-decorator]
def _put(tensor: torch.Tensor, value: torch.Tensor) -> None:
    tensor.copy_(value)
