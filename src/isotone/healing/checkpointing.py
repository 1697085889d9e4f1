"""Activations recomputed in the backward pass, for models whose activations would not fit."""

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
    """Have each layer keep its inputs only, and compute the rest again for its gradient.

    transformers' own switch works only in training mode, where dropout would be on.

    Parameters
    ----------
    model : PreTrainedModel
        The model, which is changed for good.

    Raises
    ------
    InputError
        If transformers knows no layers of the model that can be checkpointed.

    Notes
    -----
    The cost is one more forward pass in each step.
    """
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise InputError(
            f"{type(model).__name__} has no gradient checkpointing in transformers; leave "
            "--gradient-checkpointing out"
        )
    for layer in layers:
        layer.forward = partial(_checkpointed, layer.forward)


def _checkpointed(forward: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **keywords)
    return checkpoint(forward, *arguments, use_reentrant=False, **keywords)
