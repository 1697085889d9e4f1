"""Weights on their way through transformers' loader, in the place of dense tensors.

Moves and casts are passed on to the weights. Anything else that the loader does is recorded, and
done anew whenever the weight is used. So every conversion that transformers has, and every one to
come, works on packed weights; what cannot be recorded is done at once, and leaves a dense weight.

A write to a weight or to a part of it is recorded on that weight: some models zero the row of the
padding token whenever they are loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from isotone.models.lazy.deferred import Deferred, dense
from isotone.models.lazy.expression import Call, Expression, replaced
from isotone.models.packed.read_only import refuse_write


class Loading(Deferred):
    """A weight on its way through transformers' loader, whose steps are recorded and not taken.

    Parameters
    ----------
    source : Expression
        How the weight is computed so far.
    """

    viewed: tuple[Loading, Call] | None = None
    """The weight that this one is a view of, and the step that took it."""

    @classmethod
    def _compute(cls, func: Any, args: Any, kwargs: Any) -> Any:
        if _writes(func) and isinstance(args[0], Loading):
            return _written(func, args, kwargs)
        if func in (torch.Tensor.detach, torch.Tensor.data.__get__):
            made: Loading = cls(args[0].source)
            if isinstance(args[0], torch.nn.Parameter):
                made.viewed = args[0], Call(torch.Tensor.detach, (args[0].source,), {})
            return made
        if func == torch.Tensor.data.__set__ and isinstance(args[0], Loading):
            raise refuse_write(func)
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

    The step is tried on the meta device, which tells the shapes. A step that writes to an ordinary
    tensor, or that depends on values, is taken at once with the dense weights.
    """
    if _writes(func) or "out" in kwargs:
        return func(*dense(args), **dense(kwargs))
    call = Call(func, *replaced((args, kwargs), Deferred, lambda tensor: tensor.source))
    try:
        result = call.run(lambda s: torch.empty(s.shape, dtype=s.dtype, device="meta"))
    except (RuntimeError, NotImplementedError):
        return func(*dense(args), **dense(kwargs))
    device = next(call.expressions()).device

    def unfinished(tensor: torch.Tensor, part: int | None) -> Loading:
        made: Loading = Loading(Expression(tensor.shape, tensor.dtype, device, None, call, part))
        if tensor._is_view() and part is None and isinstance(args[0], Loading):
            made.viewed = args[0], call
        return made

    if isinstance(result, torch.Tensor):
        return unfinished(result, None)
    if isinstance(result, (tuple, list)) and all(isinstance(r, torch.Tensor) for r in result):
        return type(result)([unfinished(r, i) for i, r in enumerate(result)])
    return func(*dense(args), **dense(kwargs))


def _writes(func: Any) -> bool:
    """Return whether a function writes to its first argument."""
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name == "__setitem__"


def _written(func: Any, args: Any, kwargs: Any) -> Loading:
    """Record a write to a weight, and on every weight that it is a view of; return the first."""
    part: Loading | None = args[0]
    write = _Write((), func, dense(args[1:]), dense(kwargs))
    while part is not None:
        before = part.source
        call = Call(write, (before,), {})
        part.source = Expression(before.shape, before.dtype, before.device, call=call)
        part, view = part.viewed or (None, None)
        write = replace(write, views=(view, *write.views))
    return cast("Loading", args[0])


@dataclass(frozen=True)
class _Write:
    """Makes a copy of a weight, and writes to the part of it that some views lead to."""

    views: tuple[Any, ...]
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        part = written = tensor.clone()
        for view in self.views:
            part = view.function(part, *view.arguments[1:], **view.keywords)
        self.function(part, *self.arguments, **self.keywords)
        return written
