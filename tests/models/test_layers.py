"""Layers are found as the list that holds most parameters, and functions stand in for them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isotone.errors import InputError
from isotone.models.layers import find_layers, replaced_layers


def test_layers_are_the_list_with_most_parameters():
    model = nn.Module()
    model.few = nn.ModuleList([nn.Linear(2, 2) for _ in range(9)])
    model.body = nn.Module()
    model.body.many = nn.ModuleList([nn.Linear(20, 20) for _ in range(3)])
    assert find_layers(model) == list(model.body.many)
    with pytest.raises(InputError, match="Linear: has no list of layers"):
        find_layers(nn.Linear(1, 1))


def test_layers_come_back_as_they_were_after_an_exception():
    layers, inputs = [nn.Linear(3, 3) for _ in range(3)], torch.ones(3)
    layers[1].forward = hooked = lambda inputs: inputs + 1  # as accelerate's hooks do it
    before = [layer(inputs) for layer in layers]
    seen = []
    layers[0].register_forward_hook(lambda *_: seen.append("hook"))

    def inside():
        with replaced_layers(layers, {0: lambda x: 2 * x, 1: lambda x: 3 * x}):
            assert torch.equal(layers[0](inputs), 2 * inputs)
            assert torch.equal(layers[1](inputs), 3 * inputs)
            assert torch.equal(layers[2](inputs), before[2])
            raise KeyError

    with pytest.raises(KeyError):
        inside()
    assert seen == ["hook"]
    assert "forward" not in vars(layers[0])
    assert vars(layers[1])["forward"] is hooked
    assert all(torch.equal(layer(inputs), old) for layer, old in zip(layers, before, strict=True))
