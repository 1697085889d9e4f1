"""The layers of a language model, found without knowing its architecture."""

from __future__ import annotations

from typing import Any

from torch import nn

from isotone.errors import InputError


def blocks(model: nn.Module) -> list[nn.Module]:
    """The layers of a model: the list of modules that holds most of its parameters.

    Raises InputError where there is none.
    """
    modules: list[Any] = list(model.modules())
    lists = [module for module in modules if isinstance(module, nn.ModuleList)]
    if not lists:
        raise InputError(f"{type(model).__name__}: has no list of layers")
    sizes = [sum(parameter.numel() for parameter in one.parameters()) for one in lists]
    return list(lists[sizes.index(max(sizes))])
