"""Watches what flows through the matrices of a model while text runs through it.

Every product of an input with a matrix is a call of `torch.nn.functional.linear`, whether of a
module or of one expert of a stack, and the matrix is known by where it lies in memory. So nothing
here depends on an architecture. Inputs that several matrices share, as those of queries, keys and
values, are added up once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@dataclass
class Seen:
    """What was seen of one matrix [rows, columns].

    inputs: whose second moments are those of its inputs: its own number, or that of the matrix
    which had the same input just before. squared_gradients: [rows], a sum over n_gradients tokens.
    moments: [2, columns, columns], sums over n_tokens [2] tokens; None where another one has them.
    """

    number: int
    inputs: int
    n_tokens: list[int] = field(default_factory=lambda: [0, 0])
    n_gradients: int = 0
    squared_gradients: torch.Tensor | None = None
    moments: torch.Tensor | None = None


class Observer(TorchFunctionMode):  # type: ignore[misc]
    """Adds up what it sees; within a `with`.

    seeing: whether what runs now counts. held_out: whether it is to judge by.
    """

    def __init__(self, matrices: dict[int, int], *, moments: bool = True) -> None:
        """matrices: the number of each matrix by the address of its first weight.

        moments: whether those of inputs are added up; gradients are wherever any flow.
        """
        super().__init__()
        self.seen: dict[int, Seen] = {}
        self.seeing, self.held_out = True, False
        self._matrices, self._moments = matrices, moments
        self._latest: tuple[torch.Tensor, int] | None = None

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.seeing and func is torch.nn.functional.linear and len(args) > 1:
            number = self._matrices.get(args[1].data_ptr())
            if number is not None:
                self._see(number, args[0], out)
        return out

    def forget_latest(self) -> None:
        """Let go of the last input."""
        self._latest = None

    def _see(self, number: int, given: torch.Tensor, out: torch.Tensor) -> None:
        shared = self._latest is not None and self._latest[0] is given
        if number not in self.seen:
            inputs = self._latest[1] if shared and self._latest is not None else number
            self.seen[number] = Seen(number, inputs)
        seen = self.seen[number]
        rows = given.detach().reshape(-1, given.shape[-1])
        seen.n_tokens[int(self.held_out)] += len(rows)
        if self._moments and seen.inputs == number:
            self._latest = (given, number)
            if seen.moments is None:
                width = rows.shape[1]
                seen.moments = torch.zeros(2, width, width, device=rows.device)
            rows = rows.float()
            seen.moments[int(self.held_out)].addmm_(rows.T, rows)
        if out.requires_grad:
            out.register_hook(lambda gradient: _add_gradient(seen, gradient))


def _add_gradient(seen: Seen, gradient: torch.Tensor) -> None:
    rows = gradient.detach().reshape(-1, gradient.shape[-1]).float()
    added = rows.square().sum(0)
    seen.squared_gradients = (
        added if seen.squared_gradients is None else seen.squared_gradients + added
    )
    seen.n_gradients += len(rows)
