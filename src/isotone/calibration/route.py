"""Runs one window through a model up to the layer under calibration, or from there to the logits.

The model's own code runs, and the layers before the layer under calibration are replaced by
stand-ins: the last of them returns the activations that were computed for it earlier, all others
return NaN. The forward pass ends after the layer under calibration, unless that is the last layer.
Because earlier layers return NaN, any path that bypasses the chain of layers is detected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from isotone.models.layers import replaced_layers
from isotone.models.lazy.expression import replaced


class NotLayerwiseError(Exception):
    """A model cannot run one layer at a time; the message says why."""


class LayerDone(Exception):  # noqa: N818 (it ends a forward pass and is no error)
    """Ends a forward pass: the layer under calibration has run, and no other layer need run.

    Parameters
    ----------
    activations : Tensor
        What the layer returned.
    n_items : int
        The number of items that it returned, see `LayerRun`.
    """

    def __init__(self, activations: torch.Tensor, n_items: int) -> None:
        super().__init__()
        self.activations, self.n_items = activations, n_items


class HasActive(Protocol):
    """An observer that is on while the layer under calibration runs, and off during stand-ins."""

    active: bool


class LayerRun:
    """One forward pass through the layers 0 to `number`, of which only that one does any work.

    Parameters
    ----------
    number : int
        The position of the layer under calibration.
    given : Tensor or None
        The activations that the layer before it returned; None for the first layer.
    n_items : int or None
        The length of the tuple that each layer returns, of which only the first item may be other
        than None; 0 for layers that return a tensor, None if that is not known yet.
    observer : HasActive
        Is switched on while the layer under calibration runs.
    ends : bool
        Whether the pass goes on after the layer, to the logits.
    """

    def __init__(
        self,
        number: int,
        given: torch.Tensor | None,
        n_items: int | None,
        observer: HasActive,
        *,
        ends: bool,
    ) -> None:
        self._number, self._given, self._n_items = number, given, n_items
        self._observer, self._ends = observer, ends
        self._next = 0
        # Whether the layer under calibration returned finite values; if so, the logits should be.
        self._finite = True

    @contextmanager
    def installed(self, layers: Sequence[nn.Module]) -> Iterator[None]:
        """Replace layers by stand-ins inside a `with`, and check the layer under calibration.

        Parameters
        ----------
        layers : sequence of Module
            All layers of the model.

        Yields
        ------
        None
            The caller runs the model inside.

        Raises
        ------
        NotLayerwiseError
            If the model is found not to be a chain of layers.
        """
        self._observer.active = self._number == 0
        with ExitStack() as undo:
            before = range(len(layers[: self._number]))
            stand_ins = {position: self._stand_in(position) for position in before}
            undo.enter_context(replaced_layers(layers, stand_ins))
            for layer in layers[self._number : self._number + 1]:
                check = layer.register_forward_pre_hook(self._check_inputs, with_kwargs=True)
                undo.callback(check.remove)
                undo.callback(layer.register_forward_hook(self._take_output).remove)
            yield
        if layers and self._next != len(layers):
            raise NotLayerwiseError(f"it runs only {self._next} of its {len(layers)} layers")

    def check_logits(self, logits: torch.Tensor) -> None:
        """Check that the logits depend on no layer but the last one.

        Parameters
        ----------
        logits : Tensor
            What the model returned.

        Raises
        ------
        NotLayerwiseError
            If the logits hold NaN although the last layer returned finite values.
        """
        if self._finite and self._given is not None and bool(logits.isnan().any()):
            raise NotLayerwiseError("its logits depend on more than its last layer")

    def _stand_in(self, position: int) -> Callable[..., Any]:
        given, n_items = self._given, self._n_items
        assert given is not None
        assert n_items is not None
        is_last = position == self._number - 1
        activations = given if is_last else torch.full_like(given, torch.nan)

        def forward(*_args: Any, **_kwargs: Any) -> Any:
            self._expect(position)
            self._observer.active = is_last
            own = activations.clone()  # the next layer may work in place
            return (own, *[None] * (n_items - 1)) if n_items else own

        return forward

    def _check_inputs(self, _module: nn.Module, args: Any, kwargs: Any) -> None:
        self._expect(self._number)
        if self._given is None or not bool(self._given.isfinite().all()):
            return
        tensors: list[torch.Tensor] = []
        replaced((args, kwargs), torch.Tensor, tensors.append)
        if any(bool(tensor.isnan().any()) for tensor in tensors):
            raise NotLayerwiseError(
                f"its layer {self._number} takes more than the output of the layer before it"
            )

    def _take_output(self, _module: nn.Module, _args: Any, out: Any) -> None:
        activations, *others = out if isinstance(out, tuple) else (out,)
        if not isinstance(activations, torch.Tensor) or any(item is not None for item in others):
            raise NotLayerwiseError(
                f"its layer {self._number} returns something other than one tensor"
            )
        n_items = 1 + len(others) if isinstance(out, tuple) else 0
        if self._n_items not in (None, n_items):
            raise NotLayerwiseError(
                f"its layer {self._number} returns its result in another form than the other layers"
            )
        self._finite = bool(activations.isfinite().all())
        if not self._ends:
            raise LayerDone(activations, n_items)

    def _expect(self, position: int) -> None:
        if self._next != position:
            raise NotLayerwiseError(f"its layer {position} does not run in position {position}")
        self._next += 1
