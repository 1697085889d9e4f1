"""Activations made anew in the backward pass, for models whose own would not fit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from isotone.errors import InputError


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Have each layer keep its inputs only, and run once more for its gradient.

    transformers' own switch works in training mode alone, where dropout would be on. Raises
    InputError for a model that has no such layers. Cost: a forward pass more for each step.
    """
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise InputError(
            f"{type(model).__name__} has no gradient checkpointing in transformers; leave it out"
        )
    for layer in layers:
        layer.forward = partial(_checkpointed, layer.forward)


def _checkpointed(forward: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **keywords)
    return checkpoint(forward, *arguments, use_reentrant=False, **keywords)
