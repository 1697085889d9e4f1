"""Text through a language model one layer at a time, with the weights of that layer alone.

The model's own code runs, unchanged and whole, once for each layer and window: see route.py. So
nothing here depends on an architecture. The first part begins with the tokens, the last one goes on
to the logits. What lies outside of the layers, embeddings and norms, stays in memory.

A model is one part, with all its weights in memory, where it has no list of layers, where layers
share weights with one another or with what lies outside, where its weights are stored quantized,
and where it is more than a chain of layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from isotone.calibration.model import load_model
from isotone.calibration.route import NotInPartsError, Reached, Route, Watcher
from isotone.checkpoint.source.model_directory import ModelDirectory
from isotone.errors import InputError
from isotone.models.language_model.load import default_device
from isotone.models.layers import blocks
from isotone.models.lazy.loading_tensor import Loading
from isotone.models.lazy.stored import stored_weights

_FAILURES = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Held:
    """The weights of a part, in memory.

    parameters: by the checkpoint's name where each is one tensor there, else by the model's.
    tensors: the checkpoint's that they are made of; None where that is not known.
    """

    parameters: dict[str, torch.Tensor]
    tensors: set[str] | None


@dataclass(frozen=True)
class _Weight:
    """A parameter as it was loaded: unread, in a model of many parts."""

    module: nn.Module
    attribute: str
    name: str
    loaded: torch.Tensor

    @property
    def now(self) -> torch.Tensor:
        parameter: torch.Tensor = self.module._parameters[self.attribute]
        return parameter

    @property
    def tensors(self) -> list[str]:
        return [leaf.name for leaf in self.loaded.source.leaves()]

    @property
    def known_as(self) -> str:
        leaf = self.loaded.source.leaf if isinstance(self.loaded, Loading) else None
        return self.name if leaf is None else str(leaf.name)


class Parts:
    """A language model in float32, in parts that run one after the other.

    n_items: what each of its layers gives, see Route; None before one has run.
    """

    def __init__(self, model: Any, layers: Sequence[nn.Module]) -> None:
        """layers: those whose weights come and go; none for a model in one part."""
        self.model, self.device, self._layers = model, torch.device(default_device()), layers
        self.n_items: int | None = None
        owners = {id(m): number for number, layer in enumerate(layers) for m in layer.modules()}
        self._own: list[list[_Weight]] = [[] for _ in range(len(self))]
        self._outside: list[_Weight] = []
        for prefix, module in model.named_modules():
            owner = owners.get(id(module))
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    weight = _Weight(module, name, f"{prefix}.{name}".lstrip("."), parameter)
                    (self._outside if owner is None else self._own[owner]).append(weight)

    @classmethod
    def whole(cls, source: ModelDirectory) -> Parts:
        """The model in one part; raises InputError as load_model does."""
        return cls(load_model(source), [])

    @classmethod
    def by_layer(cls, source: ModelDirectory) -> Parts:
        """A part for each layer; raises NotInPartsError."""
        if "quantization_config" in source.config:
            raise NotInPartsError("its weights are stored quantized")
        try:
            model = load_model(source, stored_weights(source))
            parts = cls(model, blocks(model))
        except InputError as error:
            raise NotInPartsError(str(error)) from error
        parts._refuse_shared()
        _read(parts._outside)
        for module in model.modules():
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else _dense(buffer)
        return parts

    def __len__(self) -> int:
        return max(1, len(self._layers))

    @contextmanager
    def held(self, number: int) -> Iterator[Held]:
        """The weights of a part in memory; those outside of the layers belong to both ends."""
        own = self._own[number]
        try:
            _read(own)
            here = own + (self._outside if number in (0, len(self) - 1) else [])
            unread = all(isinstance(weight.loaded, Loading) for weight in here)
            names = {name for weight in here for name in weight.tensors} if unread else None
            yield Held({weight.known_as: weight.now for weight in here}, names)
        finally:
            for weight in own:
                weight.module._parameters[weight.attribute] = weight.loaded

    def run(
        self, number: int, tokens: torch.Tensor, given: torch.Tensor | None, watcher: Watcher
    ) -> torch.Tensor:
        """What a part that is held makes of what the part before gave: a stream, or the logits.

        tokens: [1, context]. Of logits only the last, where no gradients are wanted.
        Raises NotInPartsError where the model is more than a chain of layers.
        """
        ends = number == len(self) - 1
        options = {} if torch.is_grad_enabled() or not ends else {"logits_to_keep": 1}
        route = Route(number, given, self.n_items, watcher, ends=ends)
        try:
            with route.laid(self._layers):
                out = self.model(input_ids=tokens, use_cache=False, **options)
        except Reached as reached:
            self.n_items = reached.n_items
            return reached.stream
        except _FAILURES as error:
            if number == 0:
                raise
            raise NotInPartsError(f"its layer {number} does not run alone: {error}") from error
        logits: torch.Tensor = out.logits
        route.check_end(logits)
        return logits

    def _refuse_shared(self) -> None:
        owners: dict[int, int] = {}
        for owner, weights in enumerate([self._outside, *self._own]):
            for weight in weights:
                if owners.setdefault(id(weight.loaded), owner) != owner:
                    raise NotInPartsError(f"its layers share {weight.name}")


def _read(weights: Sequence[_Weight]) -> None:
    """Read what is unread into the model; what is tied stays so."""
    read: dict[int, nn.Parameter] = {}
    for weight in weights:
        key = id(weight.loaded)
        if key not in read:
            read[key] = nn.Parameter(_dense(weight.loaded), requires_grad=False)
        weight.module._parameters[weight.attribute] = read[key]


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    read: torch.Tensor = tensor.source.evaluate() if isinstance(tensor, Loading) else tensor.data
    return read.to(default_device())
