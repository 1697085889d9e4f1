"""Layers that are computed again in the backward pass give the same gradients."""

from __future__ import annotations

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from isotone.healing.checkpointing import checkpoint_layers
from isotone.healing.loss import cross_entropy
from tests.builders import language_model


def opt():
    """Its layers themselves drop out in training."""
    shape = {"hidden_size": 32, "ffn_dim": 64, "num_attention_heads": 2, "word_embed_proj_dim": 32}
    torch.manual_seed(0)
    return OPTForCausalLM(OPTConfig(vocab_size=320, num_hidden_layers=2, dropout=0.5, **shape))


@pytest.mark.parametrize("make", [lambda: language_model.model(attention_dropout=0.5), opt])
def test_checkpointed_layers_give_the_same_gradient_without_dropout(make):
    tokens = torch.arange(12).view(1, 12)
    gradients = []
    for checkpointed in (False, True):
        model, calls = make().eval(), []
        if checkpointed:
            checkpoint_layers(model)
        attention = next(m for n, m in model.named_modules() if n.endswith("self_attn"))
        attention.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        cross_entropy(model(tokens).logits, tokens).backward()
        assert len(calls) == 1 + checkpointed
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
