"""Statistics collected layer by layer: the same as with the whole model, and when they are not."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import isotone
from isotone.calibration import collect as collecting
from isotone.calibration.layerwise import LayerwiseRun
from isotone.calibration.parts import PartitionedModel
from isotone.calibration.route import NotLayerwiseError
from isotone.models.lazy.loading_tensor import Loading
from isotone.models.open_source import open_source
from tests.builders import language_model, tiny_models

GATED = tiny_models.GATED
CHAINS = {
    **{kind: each for kind, each in tiny_models.CONFIGS.items() if kind != "gpt2"},
    "opt-projected": ("OPTConfig", {**tiny_models.CONFIGS["opt"][1], "word_embed_proj_dim": 16}),
    "falcon": ("FalconConfig", {**tiny_models.COMMON, "alibi": False}),
    "mixtral": ("MixtralConfig", {**GATED, "num_local_experts": 4}),
}
OTHERS = {
    "returns something other than one tensor": (
        "BloomConfig",
        {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    ),
    "does not run by itself": (
        "Gemma3nTextConfig",
        {
            **GATED,
            "num_hidden_layers": 4,
            "intermediate_size": [48] * 4,
            "vocab_size_per_layer_input": 160,
            "hidden_size_per_layer_input": 16,
            "laurel_rank": 8,
            "num_kv_shared_layers": 2,
            "activation_sparsity_pattern": None,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
    ),
    "layers share": (
        "Zamba2Config",
        {
            **GATED,
            "num_hidden_layers": 4,
            "layers_block_type": ["mamba", "hybrid"] * 2,
            "mamba_d_state": 8,
            "n_mamba_heads": 4,
            "mamba_ngroups": 1,
            "num_mem_blocks": 1,
            "attention_hidden_size": 64,
            "hybrid_layer_ids": [1, 3],
        },
    ),
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(language_model.text(1000), "utf-8")
    return path


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes a tiny model of some config, with a tokenizer that fits it."""

    def write(config):
        name, arguments = config
        monkeypatch.setitem(tiny_models.CONFIGS, "one", (name, {**arguments, "vocab_size": 320}))
        dense = tiny_models.write_tiny("one", tmp_path / "dense")
        language_model.tokenizer().save_pretrained(dense)
        return dense

    return write


def refused(_source):
    raise NotLayerwiseError("asked for")


def index_of(statistics):
    return json.loads((statistics / "statistics.json").read_text("utf-8"))


def assert_same(left, right):
    assert index_of(left)["matrices"] == index_of(right)["matrices"]
    names = sorted(path.name for path in left.glob("*.npy"))
    assert names == sorted(path.name for path in right.glob("*.npy"))
    for name in names:
        np.testing.assert_array_equal(np.load(left / name), np.load(right / name), name)


@pytest.mark.parametrize("kind", CHAINS)
def test_layer_by_layer_is_to_the_last_bit_what_the_whole_model_gives(
    written, text, tmp_path, monkeypatch, kind
):
    dense = written(CHAINS[kind])
    assert isotone.calibrate(dense, tmp_path / "layers", text=text).whole_model is None
    monkeypatch.setattr(PartitionedModel, "by_layer", refused)
    assert isotone.calibrate(dense, tmp_path / "whole", text=text).whole_model == "asked for"
    assert_same(tmp_path / "layers", tmp_path / "whole")
    assert not [path for path in (tmp_path / "layers").iterdir() if path.is_dir()]


@pytest.mark.parametrize("reason", OTHERS)
def test_what_is_no_chain_of_layers_runs_whole_and_says_why(written, text, tmp_path, reason):
    dense = written(OTHERS[reason])
    summary = isotone.calibrate(dense, tmp_path / "statistics", text=text)
    assert reason in summary.whole_model
    assert index_of(tmp_path / "statistics")["about"]["whole_model"] == summary.whole_model
    assert index_of(tmp_path / "statistics")["matrices"]


def test_one_layer_is_in_memory_at_a_time(written):
    parts = PartitionedModel.by_layer(open_source(written(CHAINS["qwen3-moe"])))
    layers = parts.model.model.layers

    def unread(module):
        return [isinstance(parameter, Loading) for parameter in module.parameters()]

    for number, other in ((0, 1), (1, 0)):
        with parts.loaded(number):
            assert not any(unread(layers[number]))
            assert all(unread(layers[other]))
        assert all(unread(layers))
    assert not any(unread(parts.model.model.embed_tokens))


def test_tied_embeddings_stay_one(written):
    model = PartitionedModel.by_layer(open_source(written(CHAINS["llama-tied"]))).model
    assert model.lm_head.weight is model.model.embed_tokens.weight


class _Layers(nn.Module):
    """Three layers; what else leads from them to the logits is for those who inherit."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, input_ids, **_):
        given = [nn.functional.one_hot(input_ids, 4).float()]
        for layer in self.layers:
            given.append(layer(self.next(given)))
        return SimpleNamespace(logits=self.end(given))

    def next(self, given):
        return given[-1]

    def end(self, given):
        return given[-1]


class _Skipping(_Layers):
    def next(self, given):
        return given[-1] + given[1] if len(given) == 3 else given[-1]


class _Gathering(_Layers):
    def end(self, given):
        return sum(given[1:])


def run_through(model):
    parts, observer = PartitionedModel(model, list(model.layers)), SimpleNamespace(active=False)
    stream = None
    for number in range(3):
        with parts.loaded(number):
            stream = parts.run(number, torch.tensor([[0, 1, 3]]), stream, observer)
    return stream


def test_what_leads_past_a_layer_is_found():
    chain = _Layers()
    assert torch.equal(run_through(chain), chain(torch.tensor([[0, 1, 3]])).logits)
    with pytest.raises(NotLayerwiseError, match="layer 2 takes more"):
        run_through(_Skipping())
    with pytest.raises(NotLayerwiseError, match="depend on more than its last layer"):
        run_through(_Gathering())


@pytest.mark.parametrize(("step", "layer"), [("_run_forward", 1), ("_run_backward", 0)])
def test_a_killed_run_goes_on_with_the_layer_it_was_at(
    written, text, tmp_path, monkeypatch, step, layer
):
    dense = written(CHAINS["llama-untied"])
    isotone.calibrate(dense, tmp_path / "whole", text=text)
    real = getattr(LayerwiseRun, step)
    done = []

    def killed(self, number, *rest):
        if number == layer and not done:
            raise KeyboardInterrupt
        return real(self, number, *rest)

    def counted(self, number, *rest):
        done.append(number)
        return real(self, number, *rest)

    monkeypatch.setattr(LayerwiseRun, step, killed)
    with pytest.raises(KeyboardInterrupt):
        isotone.calibrate(dense, tmp_path / "out", text=text)
    monkeypatch.setattr(LayerwiseRun, step, counted)
    monkeypatch.setattr(collecting, "calibration_text", killed)
    isotone.calibrate(dense, tmp_path / "out", text=text)
    assert done == [layer]
    assert_same(tmp_path / "out", tmp_path / "whole")
