"""How often centroids cross, or would have crossed if nothing had kept their order.

Beside a training that keeps the order runs a shadow of it: free centroids, which follow the same
gradients by the same optimiser. It never touches the model, so it tells where free training would
have begun to go, not where it would have ended; training with order="free" shows that. Costs next
to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from isotone.healing.coordinates import Ascending, Free
from isotone.models.packed.weight import ClusteredWeight

MakeOptimizer = Any
"""Makes an optimizer of parameters, as the training's own is made."""


@dataclass(frozen=True)
class CrossingCount:
    """Neighbouring centroids, of all codebooks that are trained.

    pairs: all. crossed: those out of order now. ever: those out of order after some step.
    """

    pairs: int
    crossed: int
    ever: int


class Crossings:
    """Counts crossings of a training's codebooks, or of the shadows of those that keep order."""

    def __init__(self, weights: Sequence[ClusteredWeight], make_optimizer: MakeOptimizer) -> None:
        """weights: opened for training."""
        opened = [w.parametrizations.codebook for w in weights if _is_open(w)]
        self._trained = [c for c in opened if isinstance(c[0], Free)]
        self._kept = [c[0] for c in opened if isinstance(c[0], Ascending)]
        self._shadows = [Free.beside(coordinates) for coordinates in self._kept]
        self._places = [nn.Parameter(torch.zeros_like(s.origin)) for s in self._shadows]
        self._optimizer = make_optimizer(self._places) if self._places else None
        for coordinates in self._kept:
            coordinates.gradient = torch.zeros_like(coordinates.origin, dtype=torch.float32)
        self._ever = [torch.zeros_like(out) for out in self._out_of_order()]

    def gradients(self) -> list[torch.Tensor]:
        """Of the shadowed codebooks, for processes to sum in place before `step`."""
        return [coordinates.gradient for coordinates in self._kept]

    def step(self, rate: float) -> None:
        """The training has made a step, at a rate relative to the highest: go along."""
        if self._optimizer is not None:
            for group in self._optimizer.param_groups:
                group["lr"] = group.setdefault("highest", group["lr"]) * rate
            for place, shadow, kept in zip(self._places, self._shadows, self._kept, strict=True):
                assert kept.gradient is not None
                place.grad = kept.gradient * shadow.unit
                kept.gradient.zero_()
            self._optimizer.step()
        for ever, out in zip(self._ever, self._out_of_order(), strict=True):
            ever |= out

    def count(self) -> CrossingCount:
        """As of the last step."""
        now = self._out_of_order()
        return CrossingCount(
            pairs=sum(out.numel() for out in now),
            crossed=sum(int(out.sum()) for out in now),
            ever=sum(int(ever.sum()) for ever in self._ever),
        )

    def dump(self) -> dict[str, Any]:
        """What is needed to go on, tensors and numbers."""
        optimizer = None if self._optimizer is None else self._optimizer.state_dict()
        places = [place.detach() for place in self._places]
        return {"places": places, "optimizer": optimizer, "ever": self._ever}

    def load(self, dumped: dict[str, Any]) -> None:
        """Take up what `dump` gave."""
        self._ever = dumped["ever"]
        for place, value in zip(self._places, dumped["places"], strict=True):
            place.data.copy_(value)
        if self._optimizer is not None:
            self._optimizer.load_state_dict(dumped["optimizer"])

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _out_of_order(self) -> list[torch.Tensor]:
        free = [s(place) for s, place in zip(self._shadows, self._places, strict=True)]
        trained = [codebook() for codebook in self._trained]
        return [codebook.diff(dim=-1) <= 0 for codebook in (*free, *trained)]


def _is_open(weight: ClusteredWeight) -> bool:
    return bool(parametrize.is_parametrized(weight, "codebook"))
