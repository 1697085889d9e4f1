"""A module whose parameter is computed from clustered weights: its class, and how it comes about.

Such a module gets a class of its own: a subclass of the one it had, of the same name, in which that
attribute is a property. The clustered weights are children of the module, so they move, and show
their parameters, with it; one that is tied is the child of several. An ordinary parameter that is
assigned takes their place, and so does another packed one, by which weights are tied.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache, wraps
from typing import Any

import torch
from torch import nn

from isotone.models.lazy.deferred import Deferred
from isotone.models.lazy.expression import Expression
from isotone.models.packed.read_only import refuse_write
from isotone.models.packed.subclass import ORDINARY_CLASS, subclass

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
        made: Any = Deferred(self._current())
        made.parameter = self
        return made

    def _current(self) -> Expression:
        """Return the expression as of now: the model may have moved since it was loaded."""
        source = self.source
        if source.leaf is not None:
            return Expression.of(source.leaf)
        first = next(source.leaves())
        return replace(source, dtype=first.dtype, device=first.device)


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
    held = _held(module)
    held[name] = parameter
    ordinary: Any = getattr(type(module), ORDINARY_CLASS, type(module))
    module.__class__ = hosting_class(ordinary, *held)


@cache
def hosting_class(ordinary: Any, *names: str) -> type[Any]:
    """Make a subclass of a module's class in which some parameters are decoded when asked for.

    torch.compile traces such a module with operators in the place of what decodes them. Stacks of
    matrices and weights that are computed from several, which it would decode whole, it runs as
    they are.

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
    additions |= {
        "forward": _forward(ordinary),
        "register_parameter": _register_parameter,
        "_load_from_state_dict": _load_from_state_dict,
        "__deepcopy__": _deepcopy,
    }
    return subclass(hosting_class, (ordinary, *names), additions)


def _forward(ordinary: Any) -> Any:
    """Return the `forward` of a hosting class."""
    untraced = torch.compiler.disable(ordinary.forward)
    overridden = ordinary.forward is not nn.Embedding.forward and issubclass(ordinary, nn.Embedding)

    def forward(self: Any, *arguments: Any, **options: Any) -> Any:
        if not torch.compiler.is_compiling():
            return ordinary.forward(self, *arguments, **options)
        if not _is_traced(self, whole=overridden):
            return untraced(self, *arguments, **options)
        alone = list(_held(self)) == ["weight"] and not options
        if alone and ordinary.forward is nn.Linear.forward:
            return _held(self)["weight"].weights[0].traced_linear(*arguments, self.bias)
        if alone and ordinary.forward is nn.Embedding.forward and self.max_norm is None:
            return _held(self)["weight"].weights[0].traced_rows(*arguments)
        return ordinary.forward(self, *arguments, **options)

    return wraps(ordinary.forward)(forward)


def _is_traced(module: nn.Module, whole: bool = False) -> bool:
    """Return whether a module is traced, which decodes its weights whole unless they are looked up.

    An exported model has nothing else; a compiled one leaves stacks, of which it needs a few
    matrices, and embeddings with a `forward` of their own (`whole`) to be run as they are.
    """
    sources = [packed.source for packed in _held(module).values()]
    single = all(source.leaf is not None and source.leaf.n_matrices == 1 for source in sources)
    return torch.compiler.is_exporting() or (single and not whole)


def _held(module: nn.Module) -> nn.ModuleDict:
    held = module._modules[CLUSTERED_CHILD]
    assert isinstance(held, nn.ModuleDict)
    return held


def _drop(module: Any, name: str) -> None:
    """Take a packed parameter out of its module; without the last one the class is the old one."""
    held, ordinary = _held(module), getattr(type(module), ORDINARY_CLASS)
    del held[name]
    if not held:
        del module._modules[CLUSTERED_CHILD]
    module.__class__ = hosting_class(ordinary, *held) if held else ordinary


def _register_parameter(self: Any, name: str, param: nn.Parameter | None) -> None:
    """Let an ordinary parameter take the place of a packed one."""
    if isinstance(param, Deferred):
        raise refuse_write("register_parameter", "would take the memory of")
    if name in _held(self) and isinstance(param, nn.Parameter):
        _drop(self, name)
    nn.Module.register_parameter(self, name, param)


def _load_from_state_dict(
    self: Any, state_dict: dict[str, Any], prefix: str, *arguments: Any
) -> None:
    """Take a dense weight that equals the packed one; refuse any other."""
    for name, packed in _held(self).items():
        given = state_dict.pop(prefix + name, None)
        if given is None:
            continue
        weight = packed.deferred()
        if weight.shape != given.shape or not torch.equal(weight, given.to(weight)):
            raise refuse_write("load_state_dict")
        own = packed.state_dict(prefix=f"{prefix}{CLUSTERED_CHILD}.{name}.")
        state_dict.update(own)
    nn.Module._load_from_state_dict(self, state_dict, prefix, *arguments)


def _deepcopy(self: Any, memo: dict[int, Any]) -> Any:
    """Copy the module; a copy of this one module alone is an ordinary one, with dense weights.

    So the copies that PEFT makes of modules to train them whole are trained as those of a dense
    model. In the copy of a model, what is packed stays packed.
    """
    alone = not memo
    kind: Any = type(self)
    made = kind.__new__(kind)
    memo[id(self)] = made
    made.__dict__.update(copy.deepcopy(self.__dict__, memo))
    if alone:
        for name, packed in list(_held(made).items()):
            weight = packed.deferred().clone()
            made.register_parameter(name, nn.Parameter(weight, requires_grad=False))
    return made


def _traced(weight: Any) -> torch.Tensor:
    decoded: torch.Tensor = weight.traced()
    return decoded


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _deferred(packed: PackedParameter) -> torch.Tensor:
    return packed.deferred()


def _decoding_property(name: str) -> property:
    def get(module: nn.Module) -> Any:
        packed: Any = _held(module)[name]
        if torch.compiler.is_compiling() and _is_traced(module):
            return packed.source.evaluate(_traced)
        return _deferred(packed)

    def put(module: nn.Module, value: Any) -> None:
        if not isinstance(value, Deferred) or value.parameter is None:
            raise refuse_write("__set__")
        host(module, name, value.parameter)

    def drop(module: nn.Module) -> None:
        _drop(module, name)

    return property(get, put, drop, doc="Decoded when it is computed with.")
