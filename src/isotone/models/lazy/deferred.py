"""What a module of a packed model sees as its `weight`: a tensor that is decoded when it is used.

Its shape, dtype and device are known without decoding, and it cannot be written to. A linear layer
hands its input to the clustered weight, an embedding decodes the rows that it looks up, and an
index into a stack decodes one matrix. For everything else the dense weight is made, used and
forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from isotone.models.lazy.expression import Expression, replaced
from isotone.models.packed.read_only import refuse_write, run_reading
from isotone.models.packed.weight import ClusteredWeight

_FREE = {
    torch.Tensor.shape.__get__,
    torch.Tensor.dtype.__get__,
    torch.Tensor.device.__get__,
    torch.Tensor.ndim.__get__,
    torch.Tensor.layout.__get__,
    torch.Tensor.is_meta.__get__,
    torch.Tensor.is_cuda.__get__,
    torch.Tensor.is_sparse.__get__,
    torch.Tensor.is_quantized.__get__,
    torch.Tensor.requires_grad.__get__,
    torch.Tensor.requires_grad.__set__,
    torch.Tensor.grad_fn.__get__,
    torch.Tensor.grad.__get__,
    torch.Tensor.is_leaf.__get__,
    torch.Tensor.dim,
    torch.Tensor.size,
    torch.Tensor.stride,
    torch.Tensor.numel,
    torch.Tensor.nelement,
    torch.Tensor.element_size,
    torch.Tensor.nbytes.__get__,
    torch.Tensor.itemsize.__get__,
    torch.Tensor.is_floating_point,
    torch.Tensor.is_complex,
    torch.Tensor.is_contiguous,
    torch.Tensor.get_device,
    torch.Tensor.requires_grad_,
    torch.Tensor.__len__,
    torch.Tensor.__hash__,
    torch.is_floating_point,
    torch.numel,
}
"""Attributes and methods of a tensor that do not depend on its values."""

_TRAINS = {torch.Tensor.requires_grad.__set__, torch.Tensor.requires_grad_}
"""Those that ask for training; a packed weight may only be asked not to be trained."""


class Deferred(torch.Tensor):  # type: ignore[misc]
    """A weight that is decoded when it is computed with.

    Parameters
    ----------
    source : Expression
        How the weight is computed.
    """

    source: Expression
    parameter: Any = None
    """What the weight was asked of: a `PackedParameter` of a module, if any."""

    @staticmethod
    def __new__(cls: Any, source: Expression) -> Any:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, source.shape, dtype=source.dtype, device=source.device
        )
        tensor.source = source
        return tensor

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _FREE:
            if func in _TRAINS and cls is Deferred and _asks(*args[1:], **kwargs):
                raise refuse_write("requires_grad_", "would train")
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        return cls._compute(func, args, kwargs)

    @classmethod
    def _compute(cls, func: Any, args: Any, kwargs: Any) -> Any:
        shortcut = _SHORTCUTS.get(func)
        result = shortcut(*args, **kwargs) if shortcut else None
        if result is not None:
            return result
        decoded: list[torch.Tensor] = []

        def decode(weight: Deferred) -> torch.Tensor:
            decoded.append(weight.source.evaluate())
            return decoded[-1]

        args, kwargs = replaced((args, kwargs), Deferred, decode)
        return run_reading(func, args, kwargs, decoded)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.is_mutable:
            raise refuse_write(func)
        return func(*dense(args), **dense(kwargs or {}))


def _asks(requires_grad: bool = True) -> bool:
    return requires_grad


def _leaf(weight: Any) -> ClusteredWeight | None:
    """Return the clustered weight that a deferred weight is; None if it is made of several."""
    leaf: ClusteredWeight | None = weight.source.leaf if isinstance(weight, Deferred) else None
    return leaf


def _linear(inputs: Any, weight: Any, bias: Any = None) -> torch.Tensor | None:
    leaf = _leaf(weight)
    if leaf is None or isinstance(inputs, Deferred) or isinstance(bias, Deferred):
        return None
    return leaf.linear(inputs, bias)


def _look_up(
    ids: Any, weight: Any, _padding: Any = None, max_norm: Any = None, *_: Any, **options: Any
) -> torch.Tensor | None:
    leaf = _leaf(weight)
    renormalises = options.get("max_norm", max_norm) is not None  # which changes the weight
    if leaf is None or leaf.n_matrices != 1 or renormalises:
        return None
    return leaf.rows(ids)


def _index(weight: Any, index: Any) -> torch.Tensor | None:
    """Return one matrix of a stack, for an index that is a number; None for any other index."""
    if isinstance(index, torch.Tensor) and index.ndim == 0 and index.dtype == torch.int64:
        index = int(index)
    if type(index) is not int or not isinstance(weight, Deferred):
        return None
    return _one_matrix(weight.source, index) if 0 <= index < weight.source.shape[0] else None


def _one_matrix(source: Expression, index: int) -> torch.Tensor | None:
    """Return one matrix of a stack, through the two steps by which the loader fuses experts.

    These are `torch.stack` of matrices, and `torch.cat` of stacks along their rows or columns.
    """
    if source.leaf is not None:
        return source.leaf.matrix(index) if source.leaf.n_matrices > 1 else None
    call = source.call
    assert call is not None
    tensors, axis = call.arguments[0], call.keywords.get("dim", 0)
    if len(call.arguments) > 1 or not isinstance(tensors, (list, tuple)):
        return None
    if not all(isinstance(tensor, Expression) for tensor in tensors):
        return None
    if call.function is torch.stack and axis == 0:
        part: torch.Tensor = tensors[index].evaluate()
        return part
    if call.function is torch.cat and axis >= 1:
        parts = [_one_matrix(tensor, index) for tensor in tensors]
        return None if any(part is None for part in parts) else torch.cat(parts, dim=axis - 1)
    return None


def _address(weight: Deferred) -> int:
    """Return where the first ranks lie, by which tied weights are told from equal ones."""
    first = next(weight.source.leaves())
    address: int = first.packed_ranks.data_ptr()
    return address


_SHORTCUTS: dict[Any, Callable[..., Any]] = {
    functional.linear: _linear,
    functional.embedding: _look_up,
    torch.Tensor.__getitem__: _index,
    torch.Tensor.data_ptr: _address,
}
"""Functions that need not decode the whole weight; each returns None where it has to."""


def dense(value: Any) -> Any:
    """Return a value with the dense weight in the place of each deferred one.

    Parameters
    ----------
    value : object
        Arguments of a function of torch, deferred weights among them or inside of lists.

    Returns
    -------
    object
        The same arguments as ordinary tensors.
    """
    return replaced(value, Deferred, lambda tensor: tensor.source.evaluate())
