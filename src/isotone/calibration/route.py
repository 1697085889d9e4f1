"""The way of one window through the layers of a model of which one is at work.

The layers before it are stood in for: the last of them gives what it gave before, the others NaN.
Behind it the run is broken off, unless it is the last. What a model takes from a layer by any other
way than the chain from one to the next is NaN then, and found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from isotone.models.lazy.expression import replaced


class NotInPartsError(Exception):
    """Why a model cannot run one layer at a time."""


class Reached(Exception):  # noqa: N818
    """The layer at work is done; n_items: see Route."""

    def __init__(self, stream: torch.Tensor, n_items: int) -> None:
        super().__init__()
        self.stream, self.n_items = stream, n_items


class Watcher(Protocol):
    """Told whether what runs belongs to the layer at work, or to what stands before it."""

    seeing: bool


class Route:
    """One run through the layers 0 to `number`, that one at work.

    given: the stream that the layer before gave; None for the first. n_items: of the tuple that a
    layer gives, its first the stream and the others None; 0 where it gives the stream itself.
    ends: whether the run goes on behind the layer, to the logits.
    """

    def __init__(
        self,
        number: int,
        given: torch.Tensor | None,
        n_items: int | None,
        watcher: Watcher,
        *,
        ends: bool,
    ) -> None:
        self._number, self._given, self._n_items = number, given, n_items
        self._watcher, self._ends = watcher, ends
        self._next = 0
        self._sound = True  # what went into the last part was finite, so what comes out should be

    @contextmanager
    def laid(self, layers: Sequence[nn.Module]) -> Iterator[None]:
        """Stand-ins and checks in the place of layers, for a while."""
        self._watcher.seeing = self._number == 0
        with ExitStack() as undo:
            for place, layer in enumerate(layers[: self._number]):
                if "forward" in vars(layer):  # as accelerate's hooks leave it
                    undo.callback(setattr, layer, "forward", vars(layer)["forward"])
                else:
                    undo.callback(delattr, layer, "forward")
                layer.forward = self._standing_in(place)
            for layer in layers[self._number : self._number + 1]:
                enter = layer.register_forward_pre_hook(self._enter, with_kwargs=True)
                undo.callback(enter.remove)
                undo.callback(layer.register_forward_hook(self._leave).remove)
            yield
        if layers and self._next != len(layers):
            raise NotInPartsError(f"it runs only {self._next} of its {len(layers)} layers")

    def check_end(self, logits: torch.Tensor) -> None:
        """Raises NotInPartsError where NaN came by another way than the last layer."""
        if self._sound and self._given is not None and bool(logits.isnan().any()):
            raise NotInPartsError("more than its last layer leads to its logits")

    def _standing_in(self, place: int) -> Callable[..., Any]:
        given, n_items = self._given, self._n_items
        assert given is not None
        assert n_items is not None
        is_last = place == self._number - 1
        stream = given if is_last else torch.full_like(given, torch.nan)

        def forward(*_args: Any, **_kwargs: Any) -> Any:
            self._expect(place)
            self._watcher.seeing = is_last
            own = stream.clone()  # for what comes may work in place
            return (own, *[None] * (n_items - 1)) if n_items else own

        return forward

    def _enter(self, _module: nn.Module, args: Any, kwargs: Any) -> None:
        self._expect(self._number)
        if self._given is None or not bool(self._given.isfinite().all()):
            return
        tensors: list[torch.Tensor] = []
        replaced((args, kwargs), torch.Tensor, tensors.append)
        if any(bool(tensor.isnan().any()) for tensor in tensors):
            raise NotInPartsError(
                f"its layer {self._number} takes more than what the one before gives"
            )

    def _leave(self, _module: nn.Module, _args: Any, out: Any) -> None:
        stream, *others = out if isinstance(out, tuple) else (out,)
        if not isinstance(stream, torch.Tensor) or any(item is not None for item in others):
            raise NotInPartsError(f"its layer {self._number} gives other than one tensor")
        n_items = 1 + len(others) if isinstance(out, tuple) else 0
        if self._n_items not in (None, n_items):
            raise NotInPartsError(
                f"its layer {self._number} gives its result otherwise than the others"
            )
        self._sound = bool(stream.isfinite().all())
        if not self._ends:
            raise Reached(stream, n_items)

    def _expect(self, place: int) -> None:
        if self._next != place:
            raise NotInPartsError(f"its layer {place} runs in another place than {place}")
        self._next += 1
