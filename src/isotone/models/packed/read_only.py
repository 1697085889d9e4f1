"""Dense values that were decoded from a packed weight, and that nothing may write to.

A packed weight has no memory in which each weight could be changed: what is decoded of it is
forgotten after use. A write to that would do nothing, without a word. So whatever is computed with
a packed weight is checked afterwards: torch counts the writes to each tensor, by any operator and
through any view, and one write to decoded values is an error. What shares memory with decoded
values (a view, `.data`, `detach()`) is decoded values again, and is checked in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from isotone.errors import InputError
from isotone.models.lazy.expression import replaced

ASSIGNABLE = {torch.Tensor.requires_grad.__set__, torch.Tensor.grad.__set__}
"""Attributes of a tensor that can be assigned without changing its values."""


def refuse_write(func: object) -> InputError:
    """Return the error for a write to a packed weight.

    Parameters
    ----------
    func : object
        The function that would write.

    Returns
    -------
    InputError
        To be raised.
    """
    name = getattr(func, "__name__", str(func))
    what = "an assignment" if name == "__set__" else f"{name}()"
    return InputError(
        f"{what} would write to a packed weight, whose ranks cannot be written to; load the model "
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
        If the function wrote to one of them.
    """
    if getattr(func, "__name__", "") == "__set__" and func not in ASSIGNABLE:
        raise refuse_write(func)
    given = list(given)
    before = [(tensor._version, tensor.data_ptr()) for tensor in given]
    result = func(*args, **kwargs)
    if [(tensor._version, tensor.data_ptr()) for tensor in given] != before:
        raise refuse_write(func)
    memory = {tensor.untyped_storage().data_ptr() for tensor in given}

    def mark(tensor: torch.Tensor) -> torch.Tensor:
        strided = tensor.layout == torch.strided and not tensor.is_meta
        if not strided or tensor.untyped_storage().data_ptr() not in memory:
            return tensor
        return tensor.as_subclass(ReadOnly)

    if isinstance(result, np.ndarray):
        result.flags.writeable = False
        return result
    if type(result) in (torch.Tensor, tuple, list):
        return replaced(result, torch.Tensor, mark)
    return result
