"""Dense values that were decoded from a packed weight, and that nothing may write to.

A packed weight has no memory in which each weight could be changed: what is decoded of it is
forgotten after use. A write to that would do nothing, without a word. So every operator that runs
on decoded values is held against its own schema, which says which arguments it writes to, and is
refused if one of them shares memory with decoded values. What a function returns of that memory (a
view, `.data`, `detach()`) is decoded values again, and is guarded in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from isotone.errors import InputError
from isotone.models.lazy.expression import replaced

ASSIGNABLE = {torch.Tensor.requires_grad.__set__, torch.Tensor.grad.__set__}
"""Attributes of a tensor that can be assigned without changing its values."""


def refuse_write(func: object, does: str = "would write to") -> InputError:
    """Return the error for a write to a packed weight.

    Parameters
    ----------
    func : object
        The function that would write, or what it is called.
    does : str
        What it would do to the weight.

    Returns
    -------
    InputError
        To be raised.
    """
    name = func if isinstance(func, str) else getattr(func, "__name__", str(func))
    what = "an assignment" if name == "__set__" else f"{name}()"
    return InputError(
        f"{what} {does} a packed weight, whose ranks cannot be written to; load the model "
        'with IsotoneConfig(residency="dense") to change weights, or change values of codebooks '
        "with isotone.swapped"
    )


class ReadOnly(torch.Tensor):  # type: ignore[misc]
    """Decoded values; every other tensor that is computed with them is an ordinary one."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plain: list[torch.Tensor] = []

        def unwrap(tensor: torch.Tensor) -> torch.Tensor:
            with torch._C.DisableTorchFunctionSubclass():
                plain.append(tensor.as_subclass(torch.Tensor))
            return plain[-1]

        args, kwargs = replaced((args, kwargs or {}), ReadOnly, unwrap)
        return run_reading(func, args, kwargs, plain)


def run_reading(func: Callable[..., Any], args: Any, kwargs: Any, given: Iterable[Any]) -> Any:
    """Call a function of torch that may read some tensors and not write to them.

    Parameters
    ----------
    func : callable
        The function or method.
    args, kwargs
        Its arguments.
    given : iterable of torch.Tensor
        The tensors among them that may not be written to.

    Returns
    -------
    object
        What the function returns; tensors that share memory with the given ones are ReadOnly.

    Raises
    ------
    InputError
        If the function would write to one of them, or hands out their memory.
    """
    guarded = [tensor for tensor in given if tensor is not None]
    changed = args[:1] if _is_in_place(func) else list(_written(func, args, kwargs))
    if _assigns(func) or any(each is tensor for each in changed for tensor in guarded):
        raise refuse_write(func)
    memory = {_memory_of(tensor) for tensor in guarded} - {None}
    with _Guard(func, memory):
        result = func(*args, **kwargs)
    return _guarded(func, result, memory)


class _Guard(TorchDispatchMode):  # type: ignore[misc]
    """Refuses every operator that would write to some memory, before it runs."""

    def __init__(self, called: Callable[..., Any], memory: set[int | None]) -> None:
        super().__init__()
        self._called, self._memory = called, memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(_memory_of(tensor) in self._memory for tensor in _written(func, args, kwargs)):
            raise refuse_write(self._called)
        return func(*args, **kwargs)


def _written(operator: Any, args: Any, kwargs: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors that an operator writes to by its schema; none for other functions."""
    if not isinstance(operator, torch._ops.OpOverload) or not operator._schema.is_mutable:
        return
    for position, argument in enumerate(operator._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = args[position] if position < len(args) else kwargs.get(argument.name)
        for tensor in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(tensor, torch.Tensor):
                yield tensor


def _assigns(func: Any) -> bool:
    return getattr(func, "__name__", "") == "__set__" and func not in ASSIGNABLE


def _is_in_place(func: Any) -> bool:
    """Return whether a function is a method that writes by torch's rule for names.

    Some, `apply_` and `share_memory_` for two, are no operators and have no schema.
    """
    name = getattr(func, "__name__", "").partition(".")[0]  # "mul_.Scalar" is an overload of mul_
    return name.endswith("_") and not name.endswith("__") and hasattr(torch.Tensor, name)


def _memory_of(tensor: torch.Tensor) -> int | None:
    """Return what tells the memory of a tensor from that of others; None if it has none."""
    try:
        identity: int = tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # a sparse tensor, a wrapper
        return None
    return identity


def _guarded(func: Any, result: Any, memory: set[int | None]) -> Any:
    """Return the result of a function, guarded where it shares memory with decoded values."""

    def guard(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.as_subclass(ReadOnly) if _memory_of(tensor) in memory else tensor

    if isinstance(result, np.ndarray):
        result.flags.writeable = False
        return result
    hands_out_memory = isinstance(result, (torch.UntypedStorage, torch.TypedStorage))
    if hands_out_memory or type(result).__name__ == "PyCapsule":  # DLPack's
        raise refuse_write(func, "would give writable memory of")
    if type(result) in (torch.Tensor, tuple, list):
        return replaced(result, torch.Tensor, guard)
    return result
