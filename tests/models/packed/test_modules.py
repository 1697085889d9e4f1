"""Clustered weights in the modules of a model: tied ones are one, dense ones are told."""

from __future__ import annotations

import pytest
import torch

from isotone.models.packed.modules import hosts
from tests.builders.tiny_models import ids, load_clustered


def test_tied_weights_are_one(compressed):
    packed = load_clustered(compressed("llama-tied"))
    found = dict(hosts(packed))
    assert found["lm_head.weight"] is found["model.embed_tokens.weight"]
    untied = dict(hosts(load_clustered(compressed("llama-untied"))))
    assert untied["lm_head.weight"] is not untied["model.embed_tokens.weight"]


def test_what_cannot_be_put_off_is_dense_and_said(compressed, monkeypatch):
    from transformers.core_model_loading import MergeModulelist

    def changes_in_place(_self, input_dict, target_patterns, **_):
        merged = {}
        for pattern, tensors in input_dict.items():
            out = torch.empty(len(tensors), *tensors[0].shape, dtype=tensors[0].dtype)
            for i, tensor in enumerate(tensors):
                out[i].copy_(tensor)
            merged[pattern if len(input_dict) > 1 else target_patterns[0]] = out
        return merged

    monkeypatch.setattr(MergeModulelist, "convert", changes_in_place)
    with pytest.warns(RuntimeWarning, match=r"24 clustered tensors.*take 36864 bytes"):
        packed = load_clustered(compressed("qwen3-moe"))
    with torch.no_grad():
        dense = load_clustered(compressed("qwen3-moe"), "dense")
        assert torch.equal(packed(ids()).logits, dense(ids()).logits)
