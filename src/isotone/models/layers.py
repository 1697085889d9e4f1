"""Finds the layers of a language model, whatever its architecture, and replaces some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from isotone.errors import InputError


def find_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of a model: the list of modules that holds most of its parameters.

    Parameters
    ----------
    model : torch.nn.Module
        A language model of transformers.

    Returns
    -------
    list of torch.nn.Module
        The layers in their order.

    Raises
    ------
    InputError
        If the model has no list of modules.
    """
    modules: list[Any] = list(model.modules())
    lists = [module for module in modules if isinstance(module, nn.ModuleList)]
    if not lists:
        raise InputError(f"{type(model).__name__}: has no list of layers")
    sizes = [sum(parameter.numel() for parameter in one.parameters()) for one in lists]
    return list(lists[sizes.index(max(sizes))])


@contextmanager
def replaced_layers(
    layers: Sequence[nn.Module], forwards: Mapping[int, Callable[..., Any]]
) -> Iterator[None]:
    """Let functions stand in for some layers inside a `with`; the layers come back as they were.

    Hooks of the layers still run around the functions.

    Parameters
    ----------
    layers : sequence of torch.nn.Module
        The layers of a model.
    forwards : dict of int to function
        By the number of a layer, what is called in the place of its `forward`.

    Yields
    ------
    None
        The layers are replaced until the `with` ends, also by an exception.
    """
    with ExitStack() as undo:
        for number, forward in forwards.items():
            layer: Any = layers[number]
            if "forward" in vars(layer):  # as accelerate's hooks leave it
                undo.callback(setattr, layer, "forward", vars(layer)["forward"])
            else:
                undo.callback(delattr, layer, "forward")
            layer.forward = forward
        yield
