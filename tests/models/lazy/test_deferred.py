"""A deferred weight decodes no more than what is computed with."""

from __future__ import annotations

import torch

from isotone.models.lazy.deferred import Deferred
from isotone.models.packed.weight import ClusteredWeight
from tests.builders.tiny_models import ids, load_clustered


def test_one_expert_decodes_one_expert(compressed, monkeypatch):
    packed = load_clustered(compressed("qwen3-moe"), experts_implementation="eager")
    experts = packed.model.layers[0].mlp.experts
    whole = experts.gate_up_proj + 0
    decoded = []
    decode = ClusteredWeight.decode
    monkeypatch.setattr(
        ClusteredWeight,
        "decode",
        lambda self, rows: decoded.append(self.name) or decode(self, rows),
    )
    assert torch.equal(experts.gate_up_proj[2], whole[2])
    assert decoded == [f"model.layers.0.mlp.experts.2.{p}_proj.weight" for p in ("gate", "up")]


def test_an_embedding_decodes_only_the_rows_looked_up(compressed, monkeypatch):
    packed = load_clustered(compressed("gemma3"))
    embedding = packed.get_input_embeddings()
    expected = embedding(torch.arange(160))[ids()]
    asked = []
    rows = ClusteredWeight._decoded
    monkeypatch.setattr(
        ClusteredWeight, "_decoded", lambda self, which: asked.append(which) or rows(self, which)
    )
    assert torch.equal(embedding(ids()), expected)
    assert [len(which) for which in asked] == [ids().numel()]


def test_metadata_is_free(compressed, monkeypatch):
    weight = load_clustered(compressed("llama-tied")).lm_head.weight
    monkeypatch.setattr(ClusteredWeight, "decode", None)
    assert isinstance(weight, Deferred)
    assert (weight.shape, weight.dtype, weight.device.type) == ((160, 32), torch.bfloat16, "cpu")
    assert (weight.ndim, weight.size(1), len(weight), weight.numel()) == (2, 32, 160, 5120)
