"""Weights on their way through transformers' loader, in the place of dense tensors.

Moves and casts are passed on to the weights. Anything else that the loader does is recorded, and
done anew whenever the weight is used. So every conversion that transformers has, and every one to
come, works on packed weights; what cannot be recorded is done at once, and leaves a dense weight.
"""

from __future__ import annotations

from typing import Any

import torch

from isotone.models.lazy.deferred import Deferred, dense
from isotone.models.lazy.expression import Call, Expression, replaced


class Loading(Deferred):
    """A weight on its way through transformers' loader, whose steps are recorded and not taken.

    Parameters
    ----------
    source : Expression
        How the weight is computed so far.
    """

    @classmethod
    def _compute(cls, func: Any, args: Any, kwargs: Any) -> Any:
        if func in (torch.Tensor.detach, torch.Tensor.data.__get__):
            return cls(args[0].source)
        if func is torch.Tensor.to and isinstance(args[0], Loading):
            device, dtype, *_ = torch._C._nn._parse_to(*args[1:], **kwargs)
            return cls(_moved(args[0].source, device, dtype))
        if func is torch.Tensor.contiguous or _takes_all(func, args):
            return args[0]
        return _recorded(func, args, kwargs)


def _takes_all(func: Any, args: Any) -> bool:
    """Return whether a step is an index that selects everything, as transformers reads tensors."""
    if func is not torch.Tensor.__getitem__ or len(args) != 2:
        return False
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    return all(each is Ellipsis or each == slice(None) for each in index)


def _moved(source: Expression, device: Any, dtype: torch.dtype | None) -> Expression:
    """Return an expression on another device and in another dtype; its leaves follow in place."""
    for leaf in source.leaves():
        if device is not None:
            leaf.to(device)
    if source.leaf is not None:
        source.leaf.dtype = dtype or source.leaf.dtype
        return Expression.of(source.leaf)
    place = source.device if device is None else torch.device(device)
    source = Expression(source.shape, source.dtype, place, call=source.call, part=source.part)
    if dtype is None or dtype == source.dtype:
        return source
    call = Call(torch.Tensor.to, (source, dtype), {})
    return Expression(source.shape, dtype, place, call=call)


def _recorded(func: Any, args: Any, kwargs: Any) -> Any:
    """Return the result of a step, not yet computed; computed if it is not of plain tensors.

    The step is tried on the meta device, which tells the shapes. A step that changes a tensor in
    place, or that depends on values, is taken at once with the dense weights.
    """
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    if in_place or name in ("__setitem__", "__set__") or "out" in kwargs:
        return func(*dense(args), **dense(kwargs))
    call = Call(func, *replaced((args, kwargs), Deferred, lambda tensor: tensor.source))
    try:
        result = call.run(lambda s: torch.empty(s.shape, dtype=s.dtype, device="meta"))
    except (RuntimeError, NotImplementedError):
        return func(*dense(args), **dense(kwargs))
    device = next(call.expressions()).device

    def unfinished(tensor: torch.Tensor, part: int | None) -> Loading:
        made: Loading = Loading(Expression(tensor.shape, tensor.dtype, device, None, call, part))
        return made

    if isinstance(result, torch.Tensor):
        return unfinished(result, None)
    if isinstance(result, (tuple, list)) and all(isinstance(r, torch.Tensor) for r in result):
        return type(result)([unfinished(r, i) for i, r in enumerate(result)])
    return func(*dense(args), **dense(kwargs))
