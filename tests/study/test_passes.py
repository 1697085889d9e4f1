"""Passes over fixed windows: those that begin at the edit, and the drift they measure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import isotone
from isotone.evaluation.scoring import logits_of
from isotone.models.layers import find_layers
from isotone.models.swap import hold_ranks, swapped
from isotone.study.matrices import edit_matrices
from isotone.study.passes import Passes
from isotone.study.protocols import MatrixPlace
from tests.builders import tiny_models


def test_drift_is_that_of_the_hidden_states(studied_model):
    its, runs, inputs = studied_model
    run = next(run for run in runs if run.correction == "none" and run.layers == (0,))
    record = its.measure(run)

    with torch.no_grad():
        tokens = torch.from_numpy(inputs.windows)
        captured = []
        hooks = [
            block.register_forward_hook(lambda *call: captured.append(call[2].double()))
            for block in find_layers(its._model)
        ]
        logits_of(its._model, tokens)
        edited = edit_matrices(run, its._matrices)
        with swapped(its._model, {one.matrix.name: one.stored for one in edited}):
            logits_of(its._model, tokens)
        for hook in hooks:
            hook.remove()
    n = its._passes.n_layers
    for layer in range(n):
        then, now = captured[layer], captured[n + layer]
        assert record.drift.rms[layer] == pytest.approx(float((now**2).mean().sqrt()), rel=1e-5)
        assert record.drift.mean[layer] == pytest.approx(float(now.mean()), abs=1e-5)
        growth = (now.norm(dim=-1) / then.norm(dim=-1)).log().mean().exp()
        assert record.drift.growth[layer] == pytest.approx(float(growth), rel=1e-5)
        cosine = torch.nn.functional.cosine_similarity(now, then, dim=-1).mean()
        assert record.drift.cosine[layer] == pytest.approx(float(cosine), rel=1e-5)


@pytest.mark.parametrize("kind", tiny_models.CONFIGS)
def test_a_pass_that_begins_at_the_edit_gives_the_same_bits(kind, tmp_path):
    dense = tiny_models.write_tiny(kind, tmp_path / "dense")
    isotone.compress(dense, tmp_path / "clustered", k=6)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "clustered", dtype=torch.float32).eval()
    passes = Passes(model, tiny_models.ids().numpy().astype(np.int64))
    assert passes.n_layers == 2
    before = [parameter.clone() for parameter in model.parameters()]
    last = [
        name for name in hold_ranks(model) if (place := MatrixPlace.of(name)) and place.layer == 1
    ]
    assert last
    with swapped(model, dict.fromkeys(last, lambda tensor: tensor.codebook[..., ::-1].copy())):
        whole = passes.compare(1, reuse=False)
        part = passes.compare(1)
    for name in vars(whole[0]):
        assert np.array_equal(getattr(whole[0], name), getattr(part[0], name)), name
    assert whole[1] == part[1]
    assert whole[0].divergence.mean() > 0
    assert part[1].cosine[0] == pytest.approx(1.0)
    assert part[1].cosine[1] < 0.9999
    unedited, _ = passes.compare(2)
    assert unedited.divergence.max() == 0.0, "a pass has changed what was kept, or the model"
    for was, parameter in zip(before, model.parameters(), strict=True):
        assert torch.equal(was, parameter)
