"""Puts clustered weights into the modules of a loaded model, whatever kind of modules they are.

A module whose `weight` (or whatever its parameter is called) is clustered gets a class of its own:
a subclass of the one it had, of the same name, in which that attribute is a property. The clustered
weights are children of the module, so they move, and show their parameters, with it; one that is
tied is the child of several.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import nn

from isotone.checkpoint.compressed.manifest import ClusteredRecord
from isotone.models.lazy.deferred import Deferred
from isotone.models.lazy.expression import Expression
from isotone.models.lazy.loading_tensor import Loading
from isotone.models.packed.subclass import ORDINARY_CLASS, subclass
from isotone.models.packed.weight import ClusteredWeight

CLUSTERED_CHILD = "_clustered"
"""The child of a host module that holds its clustered weights, by parameter."""


class PackedParameter(nn.Module):  # type: ignore[misc]
    """The clustered weights that one parameter is computed from; most often a single one.

    Parameters
    ----------
    source : Expression
        How the parameter is computed; its leaves are ClusteredWeights.
    """

    def __init__(self, source: Expression) -> None:
        super().__init__()
        self.source = source
        leaves = {leaf.name: leaf for leaf in source.leaves()}
        self.weights = nn.ModuleList(leaves.values())

    def deferred(self) -> torch.Tensor:
        """Return what the host module sees: a tensor that is decoded when it is used."""
        made: torch.Tensor = Deferred(self._current())
        return made

    def _current(self) -> Expression:
        """Return the expression as of now: the model may have moved since it was loaded."""
        source = self.source
        if source.leaf is not None:
            return Expression.of(source.leaf)
        first = next(source.leaves())
        return replace(source, dtype=first.dtype, device=first.device)


def install(model: nn.Module) -> None:
    """Turn every `Loading` parameter of a model into clustered weights that it is decoded from.

    Parameters that are tied stay tied.

    Parameters
    ----------
    model : torch.nn.Module
        The model as transformers loaded it; is changed.
    """
    packed: dict[int, PackedParameter] = {}
    for module in list(model.modules()):
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if isinstance(tensor, Loading):
                parameter = packed.setdefault(id(tensor), PackedParameter(tensor.source))
                host(module, name, parameter)


def hosts(model: nn.Module) -> Iterator[tuple[str, PackedParameter]]:
    """Yield the packed parameters of a model; a tied one comes under each of its names.

    Parameters
    ----------
    model : torch.nn.Module
        Any model.

    Yields
    ------
    name : str
        The name of the parameter in the model.
    packed : PackedParameter
        Its clustered weights.
    """
    for name, module in model.named_modules(remove_duplicate=False):
        held = module._modules.get(CLUSTERED_CHILD)
        if isinstance(held, nn.ModuleDict):
            for parameter, packed in held.items():
                assert isinstance(packed, PackedParameter)
                yield f"{name}.{parameter}" if name else parameter, packed


def clustered_weights(model: nn.Module) -> list[ClusteredWeight]:
    """Return every clustered weight of a model, each once.

    Parameters
    ----------
    model : torch.nn.Module
        Any model.

    Returns
    -------
    list of ClusteredWeight
        The weights in the order of the modules; empty for a dense model.
    """
    return [module for module in model.modules() if isinstance(module, ClusteredWeight)]


def share_stored(model: nn.Module) -> None:
    """Let modules whose weights were read from one stored tensor have one clustered weight.

    A model that does not tie two matrices has them twice, although they are stored once.

    Parameters
    ----------
    model : torch.nn.Module
        The packed model; is changed.
    """
    first: dict[str, PackedParameter] = {}
    for name, packed in list(hosts(model)):
        leaf = packed.source.leaf
        if leaf is not None and first.setdefault(leaf.name, packed) is not packed:
            module, _, parameter = name.rpartition(".")
            host(model.get_submodule(module), parameter, first[leaf.name])


def warn_of_dense(model: nn.Module, read: Iterable[ClusteredRecord]) -> None:
    """Warn if tensors of a packed model are dense although its checkpoint has them clustered.

    Parameters
    ----------
    model : torch.nn.Module
        The packed model.
    read : iterable of ClusteredRecord
        The clustered tensors that it was loaded from.
    """
    read = list(read)
    packed = {weight.name for weight in clustered_weights(model)}
    held = {record.decoded_hash for record in read if record.name in packed}  # also if tied to it
    dense = [record for record in read if record.decoded_hash not in held]
    if dense:
        warnings.warn(
            f"{len(dense)} clustered tensors, {dense[0].name} for one, are dense in memory and "
            f"take {sum(record.dense_bytes for record in dense)} bytes: transformers converts them "
            "while loading in a way that cannot be put off",
            RuntimeWarning,
            stacklevel=2,
        )


def host(module: nn.Module, name: str, parameter: PackedParameter) -> None:
    """Put a packed parameter in the place of a parameter or a buffer of a module.

    Parameters
    ----------
    module : torch.nn.Module
        The module; its class is replaced by a subclass.
    name : str
        The name of the parameter.
    parameter : PackedParameter
        What takes its place; several modules may share it.
    """
    module._parameters.pop(name, None)
    module._buffers.pop(name, None)
    if CLUSTERED_CHILD not in module._modules:
        module.add_module(CLUSTERED_CHILD, nn.ModuleDict())
    held = module._modules[CLUSTERED_CHILD]
    assert isinstance(held, nn.ModuleDict)
    held[name] = parameter
    ordinary: Any = getattr(type(module), ORDINARY_CLASS, type(module))
    module.__class__ = hosting_class(ordinary, *held)


@cache
def hosting_class(ordinary: Any, *names: str) -> type[Any]:
    """Make a subclass of a module's class in which some parameters are decoded when asked for.

    torch.compile cannot trace what decodes them, so a compiled model runs such a module as it is.

    Parameters
    ----------
    ordinary : type
        The class.
    *names : str
        The parameters.

    Returns
    -------
    type
        The subclass.
    """
    additions: dict[str, Any] = {name: _decoding_property(name) for name in names}
    additions["register_parameter"] = _register_parameter
    additions["forward"] = torch.compiler.disable(ordinary.forward)
    return subclass(hosting_class, (ordinary, *names), additions)


def _register_parameter(self: Any, name: str, param: nn.Parameter | None) -> None:
    """Let an ordinary parameter take the place of a packed one."""
    held = self._modules[CLUSTERED_CHILD]
    assert isinstance(held, nn.ModuleDict)
    if name in held and isinstance(param, nn.Parameter):
        del held[name]
        ordinary = getattr(type(self), ORDINARY_CLASS)
        self.__class__ = hosting_class(ordinary, *held) if len(held) else ordinary
    nn.Module.register_parameter(self, name, param)


def _decoding_property(name: str) -> property:
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def get(module: nn.Module) -> torch.Tensor:
        held = module._modules[CLUSTERED_CHILD]
        assert isinstance(held, nn.ModuleDict)
        packed = held[name]
        assert isinstance(packed, PackedParameter)
        return packed.deferred()

    return property(get, doc="Decoded when it is computed with.")
