"""The order of centroids: how often free training breaks it, and the nearest codebook that has it.

Beside a training that keeps the order runs a shadow of it: free centroids, which follow the same
gradients by the same optimizer. The shadow never touches the model, so it tells where free training
would have begun to go, not where it would have ended; training with order="free" shows that. It
costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import parametrize

from isotone.healing.coordinates import AscendingCoordinates, FreeCoordinates
from isotone.models.packed.weight import ClusteredWeight

MakeOptimizer = Any
"""Makes an optimizer of parameters, as the training's own is made."""


@dataclass(frozen=True)
class CrossingCount:
    """Neighbouring centroids that cross, over all codebooks that are trained.

    Attributes
    ----------
    pairs : int
        The number of pairs of neighbours.
    crossed : int
        The number of pairs that are out of order now.
    ever : int
        The number of pairs that were out of order after any step.
    """

    pairs: int
    crossed: int
    ever: int


class CrossingCounter:
    """Counts crossings of trained codebooks, or of the shadows of those that keep their order.

    Parameters
    ----------
    weights : sequence of ClusteredWeight
        The clustered weights of the model, opened for training.
    make_optimizer : callable
        Makes an optimizer of the shadows, as that of the training is made.
    """

    def __init__(self, weights: Sequence[ClusteredWeight], make_optimizer: MakeOptimizer) -> None:
        opened = [w.parametrizations.codebook for w in weights if _is_open(w)]
        self._trained = [c for c in opened if isinstance(c[0], FreeCoordinates)]
        self._kept = [c[0] for c in opened if isinstance(c[0], AscendingCoordinates)]
        self._shadows = [FreeCoordinates.beside(coordinates) for coordinates in self._kept]
        self._places = [nn.Parameter(torch.zeros_like(s.origin)) for s in self._shadows]
        self._optimizer = make_optimizer(self._places) if self._places else None
        for coordinates in self._kept:
            coordinates.gradient = torch.zeros_like(coordinates.origin, dtype=torch.float32)
        self._ever = [torch.zeros_like(out) for out in self._out_of_order()]

    def gradients(self) -> list[torch.Tensor]:
        """Return the gradients of the shadowed codebooks, to be summed over processes in place."""
        return [coordinates.gradient for coordinates in self._kept]

    def step(self, rate: float) -> None:
        """Move the shadows as the training has just moved its codebooks.

        Parameters
        ----------
        rate : float
            The learning rate of the step, relative to the highest.
        """
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
        """Return the crossings as of the last step."""
        now = self._out_of_order()
        return CrossingCount(
            pairs=sum(out.numel() for out in now),
            crossed=sum(int(out.sum()) for out in now),
            ever=sum(int(ever.sum()) for ever in self._ever),
        )

    def dump(self) -> dict[str, Any]:
        """Return what is needed to continue later: tensors and numbers."""
        optimizer = None if self._optimizer is None else self._optimizer.state_dict()
        places = [place.detach() for place in self._places]
        return {"places": places, "optimizer": optimizer, "ever": self._ever}

    def load(self, dumped: dict[str, Any]) -> None:
        """Continue from a state.

        Parameters
        ----------
        dumped : dict
            What `dump` returned.
        """
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


def nearest_ascending(codebook: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the nearest codebook in ascending order, with no two centroids the same.

    Parameters
    ----------
    codebook : float32 array, `[..., k]`
        Centroids in any order.

    Returns
    -------
    float32 array, `[..., k]`
        Centroids that crossed meet at their mean; equal ones are then separated by float32's
        smallest step.

    References
    ----------
    Isotonic regression by pooling adjacent violators: Barlow et al., "Statistical Inference under
    Order Restrictions", 1972.

    Examples
    --------
    >>> nearest_ascending(np.array([0.0, 3.0, 1.0, 4.0], np.float32))
    array([0.       , 2.       , 2.0000002, 4.       ], dtype=float32)
    """
    flat = codebook.reshape(-1, codebook.shape[-1])
    return np.stack([_separated(_pooled(row)) for row in flat]).reshape(codebook.shape)


def _is_open(weight: ClusteredWeight) -> bool:
    return bool(parametrize.is_parametrized(weight, "codebook"))


def _pooled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the nearest values that do not descend."""
    pools: list[tuple[float, int]] = []
    for value in values.tolist():
        mean, size = value, 1
        while pools and pools[-1][0] > mean:
            before, length = pools.pop()
            mean, size = (before * length + mean * size) / (length + size), size + length
        pools.append((mean, size))
    return np.repeat([mean for mean, _ in pools], [n for _, n in pools]).astype(np.float32)


def _separated(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return values that ascend strictly, moved up where they did not."""
    separated = values.copy()
    for at in range(1, len(separated)):
        if separated[at] <= separated[at - 1]:
            separated[at] = np.nextafter(separated[at - 1], np.float32(np.inf))
    return separated
