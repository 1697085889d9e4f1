"""Where the matrices of a checkpoint lie in a model that stores them otherwise."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM

from isotone.calibration.locate import locate_matrices
from isotone.models.open_source import open_source
from isotone.plan.job import plan_job
from isotone.plan.settings import Selection
from tests.builders import language_model, tiny_models


def test_fused_experts_are_observed_one_by_one(tmp_path):
    dense = tiny_models.write_tiny("qwen3-moe", tmp_path / "dense")
    language_model.tokenizer(n_tokens=258).save_pretrained(dense)
    source = open_source(dense)
    model = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32)
    found = locate_matrices(
        dict(model.named_parameters()), None, source, plan_job(source, Selection()).clustered
    )
    by_name = {location.tensor: location for location in found}
    experts = model.model.layers[1].mlp.experts
    for index in range(4):
        prefix = f"model.layers.1.mlp.experts.{index}."
        gate, up = by_name[prefix + "gate_proj.weight"], by_name[prefix + "up_proj.weight"]
        assert gate.address == up.address == experts.gate_up_proj[index].data_ptr()
        assert (gate.first_row, up.first_row) == (0, 24)
        down = by_name[prefix + "down_proj.weight"]
        assert (down.address, down.first_row) == (experts.down_proj[index].data_ptr(), 0)
