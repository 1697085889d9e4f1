"""What is collected is what flows through a tiny Llama, however the work is interrupted."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import isotone
from isotone.calibration import collect as collecting
from isotone.calibration import locate as locating
from isotone.calibration.parts import PartitionedModel
from isotone.calibration.statistics import Statistics
from tests.builders.calibrated_models import PROJECTIONS


def test_what_is_collected_is_what_flows_through(dense, statistics):
    """Against transformers' own hooks, on the same tokens."""
    found = Statistics.open(statistics)
    windows = torch.from_numpy(np.load(statistics / "text.npy"))
    model = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32)
    name = "model.layers.1.mlp.down_proj"
    given = []
    model.get_submodule(name).register_forward_pre_hook(lambda _m, args: given.append(args[0][0]))
    with torch.no_grad():
        for window in windows:
            model(input_ids=window[None])
    for part, held_out in ((found.sensitivity, False), (found.held_out, True)):
        sensitivity = part(name + ".weight", 0, 64)
        inputs = torch.cat([x for i, x in enumerate(given) if (i % 4 == 3) == held_out])
        assert sensitivity.n_tokens == len(inputs)
        expected = (inputs.T @ inputs / len(inputs)).numpy()
        np.testing.assert_allclose(sensitivity.inputs, expected, rtol=1e-3, atol=1e-4)
        assert (sensitivity.outputs > 0).all()


def test_queries_keys_and_values_share_their_inputs(statistics):
    numbers = {name: [] for name in ("q", "k", "v", "o")}
    for each in json.loads((statistics / "statistics.json").read_text("utf-8"))["matrices"]:
        for name, found in numbers.items():
            if f".{name}_proj" in each["tensor"]:
                found.append(each["inputs"])
    assert numbers["q"] == numbers["k"] == numbers["v"] != numbers["o"]


def test_output_gradients_are_those_of_what_the_model_predicts(dense, statistics):
    """The Fisher information of the last matrix has a closed form: through the final norm."""
    found = Statistics.open(statistics).sensitivity("model.layers.1.mlp.down_proj.weight", 0, 64)
    model = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32)
    windows = torch.from_numpy(np.load(statistics / "text.npy"))[::3]
    before_norm = []
    model.model.norm.register_forward_pre_hook(lambda _m, args: before_norm.append(args[0][0]))
    with torch.no_grad():
        for window in windows:
            model.model(input_ids=window[None])
    expected = torch.zeros(64)
    states = torch.cat(before_norm)[::16]
    for state in states:
        jacobian = torch.autograd.functional.jacobian(
            lambda x: model.lm_head(model.model.norm(x)), state
        )
        shares = torch.softmax(model.lm_head(model.model.norm(state)), -1).detach()
        centred = jacobian - shares @ jacobian
        expected += (shares[:, None] * centred.square()).sum(0)
    ratio = torch.from_numpy(found.outputs) / (expected / len(states))
    # One draw a position and a sixteenth of the positions: both are noisy.
    assert 0.7 < float(ratio.median()) < 1.4


def test_killed_while_observing_it_keeps_the_text(dense, tmp_path, monkeypatch):
    def killed(*_args, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PartitionedModel, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            isotone.calibrate(dense, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(collecting, "calibration_text", killed)
        isotone.calibrate(dense, tmp_path / "out")
    assert {name for name, _ in Statistics.open(tmp_path / "out").matrices} >= set(PROJECTIONS)


def test_memory_for_some_matrices_at_a_time_changes_nothing(
    dense, text, statistics, tmp_path, monkeypatch
):
    monkeypatch.setattr(locating, "_MEMORY_SHARE", 1e-9)
    isotone.calibrate(dense, tmp_path / "out", text=text)
    assert len(list((tmp_path / "out").glob("inputs-*"))) == 16
    assert len(list(statistics.glob("inputs-*"))) == 10
    one, many = Statistics.open(statistics), Statistics.open(tmp_path / "out")
    for name in PROJECTIONS:
        left, right = one.sensitivity(name, 0, 64), many.sensitivity(name, 0, 64)
        np.testing.assert_allclose(left.inputs, right.inputs, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(left.outputs, right.outputs, rtol=1e-4)
