"""How a weight is computed from clustered weights: one of them as it is, or steps on several.

The steps are those that transformers' loader takes when a checkpoint is laid out otherwise than the
model: it stacks the matrices of experts, fuses projections, transposes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

Decode = Callable[[Any], torch.Tensor]
"""Makes the dense tensor of a leaf."""


@dataclass(frozen=True, eq=False)
class Expression:
    """A weight that is not computed yet: a leaf, or a step on other expressions.

    A leaf is whatever holds or finds the values of one tensor of a checkpoint: a `ClusteredWeight`,
    or one of the weights in `isotone.models.lazy.stored` that are yet to be read. It has a `name`,
    `shape`, `dtype` and `device`, moves with `to(device)`, and decodes when it is called.

    Attributes
    ----------
    shape : torch.Size
        The shape of the result.
    dtype : torch.dtype
        The dtype of the result.
    device : torch.device
        The device of the result.
    leaf : object, optional
        The leaf, if the expression is one.
    call : Call, optional
        The step, if it is none.
    part : int, optional
        Which of the step's results it is, where the step has several.
    """

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    leaf: Any = None
    call: Call | None = None
    part: int | None = None

    @classmethod
    def of(cls, leaf: Any) -> Expression:
        """Return the expression that is one leaf.

        Parameters
        ----------
        leaf : object
            A leaf: see the class.

        Returns
        -------
        Expression
            The expression, with the shape, dtype and device that the leaf has now.
        """
        return cls(leaf.shape, leaf.dtype, leaf.device, leaf=leaf)

    def leaves(self) -> Iterator[Any]:
        """Yield the leaves in order; one that is used twice comes twice."""
        if self.leaf is not None:
            yield self.leaf
        else:
            assert self.call is not None
            for expression in self.call.expressions():
                yield from expression.leaves()

    def evaluate(self, decode: Decode | None = None) -> torch.Tensor:
        """Compute the dense tensor.

        Parameters
        ----------
        decode : function, optional
            What to take for each leaf; by default what the leaf gives when it is called.

        Returns
        -------
        torch.Tensor
            The tensor. Steps whose results several parts share are taken once.
        """
        return self._evaluate(decode or (lambda leaf: leaf()), {})

    def _evaluate(self, decode: Decode, done: dict[int, Any]) -> torch.Tensor:
        """Compute the tensor; `done` holds the results of steps, by the identity of their call."""
        if self.leaf is not None:
            return decode(self.leaf)
        assert self.call is not None
        if id(self.call) not in done:
            done[id(self.call)] = self.call.run(lambda each: each._evaluate(decode, done))
        result = done[id(self.call)]
        tensor: torch.Tensor = result if self.part is None else result[self.part]
        return tensor


@dataclass(frozen=True, eq=False)
class Call:
    """A call of one of torch's functions that was put off.

    Attributes
    ----------
    function : function
        The function or method.
    arguments : tuple
        Its positional arguments; expressions stand for tensors, also inside of lists.
    keywords : dict of str to object
        Its keyword arguments, likewise.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    def run(self, stand_in: Callable[[Expression], Any]) -> Any:
        """Call the function, with something in the place of each expression.

        Parameters
        ----------
        stand_in : function
            Makes of an expression what the function is given.

        Returns
        -------
        object
            What the function returns.
        """
        arguments = replaced(self.arguments, Expression, stand_in)
        return self.function(*arguments, **replaced(self.keywords, Expression, stand_in))

    def expressions(self) -> Iterator[Expression]:
        """Yield the expressions among the arguments, in order."""
        found: list[Expression] = []
        replaced((self.arguments, self.keywords), Expression, found.append)
        yield from found


def replaced(value: Any, kind: type[Any], replace: Callable[[Any], Any]) -> Any:
    """Return a value with everything of a kind replaced, also inside of lists, tuples and dicts.

    Parameters
    ----------
    value : object
        Any value; it is not changed.
    kind : type
        What to replace.
    replace : function
        Makes the replacement of an object of that kind.

    Returns
    -------
    object
        The value, its lists, tuples and dicts copied.
    """
    if isinstance(value, kind):
        return replace(value)
    if isinstance(value, (list, tuple)):
        items = [replaced(item, kind, replace) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return {key: replaced(item, kind, replace) for key, item in value.items()}
    return value
