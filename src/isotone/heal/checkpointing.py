"""Activations made anew in the backward pass, for models whose own would not fit."""

from __future__ import annotations

from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from isotone.errors import InputError


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Have each layer keep its inputs only, and run once more for its gradient.

    transformers does that in training mode alone, which would turn dropout on; so the mode is set
    on the layers and not on what is in them. Raises InputError for a model that has no such layers.
    Cost: a forward pass more for each step.
    """
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not model.supports_gradient_checkpointing or not layers:
        raise InputError(
            f"{type(model).__name__} has no gradient checkpointing in transformers; leave it out"
        )
    # Versions from 5.20 on warn of the older name.
    older = model.gradient_checkpointing_enable
    getattr(model, "activation_checkpointing_enable", older)({"use_reentrant": False})
    for layer in layers:
        layer.training = True
