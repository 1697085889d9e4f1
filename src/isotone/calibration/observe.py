"""Observes the inputs and the output gradients of a model's matrices while text runs through it.

Every product of an input with a matrix is a call of `torch.nn.functional.linear`, or of `matmul`
with the matrix transposed, whether in a module or for one expert of a stack, and the matrix is
identified by its memory address. So nothing here depends on an architecture. Where several matrices
share one input, as those of queries, keys and values do, its second moments are added up once.

Matrices with a row for each token are observed in ways of their own. One that makes logits is a
head: what depends on its outputs is taken from the predictions (`predictions.py`). One whose rows
are read by `torch.nn.functional.embedding` has no inputs; the second moments of the gradients of
the rows that were read are added up instead.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from isotone.calibration.predictions import Predictions

_FACTORS = {
    torch.matmul: 0,
    torch.Tensor.matmul: 0,
    torch.Tensor.__matmul__: 0,
    torch.mm: 0,
    torch.Tensor.mm: 0,
    torch.addmm: 1,
}
"""Functions that multiply two matrices, and the position of the first one among the arguments."""


@dataclass
class Observation:
    """What was observed of one matrix of `[rows, columns]`.

    Attributes
    ----------
    number : int
        The number of the matrix.
    inputs : int
        The number of the matrix that has the second moments of its inputs: its own, or that of the
        matrix that was given the same input just before.
    n_tokens : list of int
        The number of its inputs, for clustering and held out.
    n_gradients : int
        The number of tokens that gradients were observed of.
    squared_gradients : float32 Tensor, `[rows]`, optional
        The sum of the squared gradients of its outputs; None before there are any.
    moments : float32 Tensor, `[2, columns, columns]`, optional
        The sums of `x x^T` over its inputs, for clustering and held out; None if another matrix has
        them.
    """

    number: int
    inputs: int
    n_tokens: list[int] = field(default_factory=lambda: [0, 0])
    n_gradients: int = 0
    squared_gradients: torch.Tensor | None = None
    moments: torch.Tensor | None = None


class Observer(TorchFunctionMode):  # type: ignore[misc]
    """Adds up what flows through matrices while it is entered as a context manager.

    Attribute `active` says whether what runs now counts, `held_out` whether it belongs to the
    held-out windows. `observations` has the result for each matrix by its number; `predictions` has
    the predictions of the head, whose number is `head`, or None as long as no head was observed.

    Parameters
    ----------
    matrices : dict of int to int
        The number of each matrix by the address of its first weight.
    vocabulary : set of int
        The numbers of the matrices that have a row for each token.
    moments : bool
        Whether second moments of inputs are added up, and predictions. If not, gradients are
        observed: their squares at the outputs of matrices, and their second moments at the rows
        that are read from an embedding.
    """

    def __init__(
        self, matrices: dict[int, int], vocabulary: Set[int] = frozenset(), *, moments: bool = True
    ) -> None:
        super().__init__()
        self.observations: dict[int, Observation] = {}
        self.head: int | None = None
        self.predictions: Predictions | None = None
        self.active, self.held_out = True, False
        self._matrices, self._vocabulary, self._moments = matrices, vocabulary, moments
        self._latest: tuple[torch.Tensor, int] | None = None
        self._outputs: torch.Tensor | None = None

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not self.active:
            return out
        given = _product(func, args)
        if given is not None:
            inputs, weight = given
            number = self._matrices.get(weight.data_ptr())
            return out if number is None else self._multiplied(number, inputs, out)
        if func is torch.nn.functional.embedding and len(args) > 1 and not self._moments:
            number = self._matrices.get(args[1].data_ptr(), -1)
            if number in self._vocabulary:
                out = out.detach().requires_grad_()
                out.register_hook(partial(self._add_read, number, held_out=self.held_out))
        return out

    def _multiplied(self, number: int, inputs: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Observe a product, and return it; that of a head as the begin of a graph of its own."""
        if number not in self._vocabulary:
            self._observe(number, inputs, out)
        elif self._moments:
            self._observe(number, inputs, out)
            self.head = number
            self._outputs = out = out.detach().requires_grad_()
        return out

    @property
    def expects_head(self) -> bool:
        """Whether a head may be among the matrices, whose predictions are to be observed."""
        return self._moments and not self._vocabulary.isdisjoint(self._matrices.values())

    def take_predictions(self, logits: torch.Tensor, first: int) -> None:
        """Add the predictions of a window, if its logits were made by a head that is observed.

        Parameters
        ----------
        logits : Tensor, `[1, positions, vocabulary]`
            What the model returned.
        first : int
            The first position that predicts text, and not the prefix of the window.
        """
        outputs, self._outputs = self._outputs, None
        if outputs is None or outputs.shape != logits.shape:
            return
        if self.predictions is None:
            self.predictions = Predictions(outputs.shape[-1])
        self.predictions.add(outputs, logits, first)

    def release_input(self) -> None:
        """Drop the reference to the latest input, which the next one is compared with."""
        self._latest = None

    def _observe(self, number: int, given: torch.Tensor, out: torch.Tensor) -> None:
        shared = self._latest is not None and self._latest[0] is given
        if number not in self.observations:
            inputs = self._latest[1] if shared and self._latest is not None else number
            self.observations[number] = Observation(number, inputs)
        observation = self.observations[number]
        rows = given.detach().reshape(-1, given.shape[-1])
        if self._moments and observation.inputs == number:
            self._latest = (given, number)
            self._add_moments(observation, rows, self.held_out)
        else:
            observation.n_tokens[int(self.held_out)] += len(rows)
        if out.requires_grad:
            out.register_hook(lambda gradient: _add_gradient(observation, gradient))

    def _add_read(self, number: int, gradient: torch.Tensor, *, held_out: bool) -> None:
        """Add the gradients of rows that were read from an embedding."""
        observation = self.observations.setdefault(number, Observation(number, number))
        self._add_moments(observation, gradient.reshape(-1, gradient.shape[-1]), held_out)

    def _add_moments(self, observation: Observation, rows: torch.Tensor, held_out: bool) -> None:
        if observation.moments is None:
            width = rows.shape[1]
            observation.moments = torch.zeros(2, width, width, device=rows.device)
        rows = rows.float()
        observation.moments[int(held_out)].addmm_(rows.T, rows)
        observation.n_tokens[int(held_out)] += len(rows)


def _product(func: Any, args: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the inputs and the matrix, if a call multiplies inputs with the rows of a matrix.

    The call is `linear`, or a product with the transposed matrix, as some models write it.
    """
    if func is torch.nn.functional.linear and len(args) > 1:
        return args[0], args[1]
    first = _FACTORS.get(func, len(args))
    if len(args) < first + 2:
        return None
    inputs, weight = args[first : first + 2]
    if not isinstance(inputs, torch.Tensor) or not isinstance(weight, torch.Tensor):
        return None
    is_transposed = weight.ndim == 2 and weight.stride() == (1, weight.shape[0])
    return (inputs, weight) if is_transposed and not weight.is_contiguous() else None


def _add_gradient(observation: Observation, gradient: torch.Tensor) -> None:
    rows = gradient.detach().reshape(-1, gradient.shape[-1]).float()
    added = rows.square().sum(0)
    known = observation.squared_gradients
    observation.squared_gradients = added if known is None else known + added
    observation.n_gradients += len(rows)
