"""A language model in parts, of which one at a time is in memory: its layers, or all of it at once.

The model's own code runs, unchanged and whole, once for each layer and window (see `route.py`), so
nothing here depends on an architecture. The first part begins with the tokens, and the last one
goes on to the logits. Weights outside of the layers (embeddings, norms, head) stay in memory.

A model is a single part, with all its weights in memory, if it has no list of layers, if layers
share weights with one another or with the rest of the model, if its weights are stored quantized,
or if it is more than a chain of layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from isotone.calibration.model import load_model
from isotone.calibration.route import HasActive, LayerDone, LayerRun, NotLayerwiseError
from isotone.checkpoint.source.model_directory import ModelDirectory
from isotone.errors import InputError
from isotone.models.language_model.load import default_device
from isotone.models.layers import find_layers
from isotone.models.lazy.loading_tensor import Loading
from isotone.models.lazy.stored import stored_weights

_FAILURES = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class LoadedPart:
    """The weights of the part that is in memory.

    Attributes
    ----------
    parameters : dict of str to Tensor
        The parameters, by the checkpoint's name where each is one tensor there, else by the
        model's.
    tensors : set of str or None
        The tensors of the checkpoint that they are made of; None if that is not known.
    """

    parameters: dict[str, torch.Tensor]
    tensors: set[str] | None


@dataclass(frozen=True)
class _Weight:
    """A parameter as it was loaded: not read yet, in a model of many parts."""

    module: nn.Module
    attribute: str
    name: str
    loaded: torch.Tensor

    @property
    def current(self) -> torch.Tensor:
        parameter: torch.Tensor = self.module._parameters[self.attribute]
        return parameter

    @property
    def tensors(self) -> list[str]:
        return [leaf.name for leaf in self.loaded.source.leaves()]

    @property
    def stored_name(self) -> str:
        leaf = self.loaded.source.leaf if isinstance(self.loaded, Loading) else None
        return self.name if leaf is None else str(leaf.name)


class PartitionedModel:
    """A language model in float32, in parts that run one after the other.

    Attribute `n_items` is the number of items that each layer returns (see `LayerRun`), None before
    a layer has run.

    Parameters
    ----------
    model : PreTrainedModel
        The model, as transformers loads it.
    layers : sequence of Module
        Its layers, one for each part; none for a model in one part.
    """

    def __init__(self, model: Any, layers: Sequence[nn.Module]) -> None:
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
    def whole(cls, source: ModelDirectory) -> PartitionedModel:
        """Load a model in one part.

        Parameters
        ----------
        source : ModelDirectory
            The model directory.

        Returns
        -------
        PartitionedModel
            The model, with all its weights in memory.
        """
        if "quantization_config" in source.config:
            return cls(load_model(source), [])
        parts = cls(load_model(source, stored_weights(source)), [])
        parts._read_outside()
        return parts

    @classmethod
    def by_layer(cls, source: ModelDirectory) -> PartitionedModel:
        """Load a model with a part for each of its layers.

        Parameters
        ----------
        source : ModelDirectory
            The model directory.

        Returns
        -------
        PartitionedModel
            The model; of its weights only those outside of the layers are in memory.

        Raises
        ------
        NotLayerwiseError
            If the model cannot be divided into layers.
        """
        if "quantization_config" in source.config:
            raise NotLayerwiseError("its weights are stored quantized")
        try:
            model = load_model(source, stored_weights(source))
            parts = cls(model, find_layers(model))
        except InputError as error:
            raise NotLayerwiseError(str(error)) from error
        parts._refuse_shared()
        parts._read_outside()
        return parts

    def __len__(self) -> int:
        return max(1, len(self._layers))

    @contextmanager
    def loaded(self, number: int) -> Iterator[LoadedPart]:
        """Hold the weights of a part in memory for the length of a `with`.

        The weights outside of the layers count to the first and to the last part.

        Parameters
        ----------
        number : int
            The position of the part.

        Yields
        ------
        LoadedPart
            Its weights.
        """
        own = self._own[number]
        try:
            _read(own)
            here = own + (self._outside if number in (0, len(self) - 1) else [])
            unread = all(isinstance(weight.loaded, Loading) for weight in here)
            names = {name for weight in here for name in weight.tensors} if unread else None
            yield LoadedPart({weight.stored_name: weight.current for weight in here}, names)
        finally:
            for weight in own:
                weight.module._parameters[weight.attribute] = weight.loaded

    def run(
        self, number: int, tokens: torch.Tensor, given: torch.Tensor | None, observer: HasActive
    ) -> torch.Tensor:
        """Run a part that is loaded.

        Parameters
        ----------
        number : int
            The position of the part.
        tokens : int64 Tensor, `[1, context]`
            The window.
        given : Tensor or None
            The activations that the part before returned; None for the first part.
        observer : HasActive
            Is switched on while the part runs.

        Returns
        -------
        Tensor
            The activations, or the logits for the last part: those of the last token alone, unless
            gradients are wanted.

        Raises
        ------
        NotLayerwiseError
            If the model is more than a chain of layers.
        """
        ends = number == len(self) - 1
        options = {} if torch.is_grad_enabled() or not ends else {"logits_to_keep": 1}
        run = LayerRun(number, given, self.n_items, observer, ends=ends)
        try:
            with run.installed(self._layers):
                out = self.model(input_ids=tokens, use_cache=False, **options)
        except LayerDone as done:
            self.n_items = done.n_items
            return done.activations
        except _FAILURES as error:
            if number == 0:
                raise
            raise NotLayerwiseError(
                f"its layer {number} does not run by itself: {error}"
            ) from error
        logits: torch.Tensor = out.logits
        run.check_logits(logits)
        return logits

    def _read_outside(self) -> None:
        _read(self._outside)
        for module in self.model.modules():
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else _dense(buffer)

    def _refuse_shared(self) -> None:
        owners: dict[int, int] = {}
        for owner, weights in enumerate([self._outside, *self._own]):
            for weight in weights:
                if owners.setdefault(id(weight.loaded), owner) != owner:
                    raise NotLayerwiseError(f"its layers share {weight.name}")


def _read(weights: Sequence[_Weight]) -> None:
    """Read weights into the model; weights that are tied to each other stay tied."""
    read: dict[int, nn.Parameter] = {}
    for weight in weights:
        key = id(weight.loaded)
        if key not in read:
            read[key] = nn.Parameter(_dense(weight.loaded), requires_grad=False)
        weight.module._parameters[weight.attribute] = read[key]


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    read: torch.Tensor = tensor.source.evaluate() if isinstance(tensor, Loading) else tensor.data
    return read.to(default_device())
