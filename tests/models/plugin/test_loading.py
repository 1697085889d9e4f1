"""transformers loads compressed roundtrips as it would load the dense model."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, pipeline

from isotone.pipeline.compress import compress
from isotone.pipeline.verify import verify
from tests.builders.tiny_models import CONFIGS, K, config_of, ids


def parameters(model):
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())


def assert_same(one, other):
    """The same parameters, bit for bit, and the same logits."""
    ours, theirs = parameters(one), parameters(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor, theirs[name]), name
    with torch.no_grad():
        assert torch.equal(one(ids()).logits, other(ids()).logits)


@pytest.mark.parametrize("kind", CONFIGS)
def test_loads_what_decompress_gives(kind, roundtrips):
    _, out, plain = roundtrips(kind)
    model = AutoModelForCausalLM.from_pretrained(out)
    assert_same(model, AutoModelForCausalLM.from_pretrained(plain))
    assert model.dtype == torch.bfloat16
    assert not getattr(model.config, "quantization_config", None)
    assert not hasattr(model, "hf_quantizer")
    n_shared = sum(p is model.get_input_embeddings().weight for p in parameters(model).values())
    assert n_shared == 1 + bool(model.config.tie_word_embeddings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, "auto", None])
@pytest.mark.parametrize("device_map", [None, "cpu", "auto", {"": "cpu"}])
def test_dtype_and_device_map_are_those_of_the_dense_model(dtype, device_map, roundtrips):
    _, out, plain = roundtrips("llama-tied")
    options = {"dtype": dtype, "device_map": device_map}
    model = AutoModelForCausalLM.from_pretrained(out, **options)
    assert_same(model, AutoModelForCausalLM.from_pretrained(plain, **options))


@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
def test_other_source_formats(stored, roundtrips):
    _, out, plain = roundtrips("llama-untied", stored)
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == stored
    assert_same(model, AutoModelForCausalLM.from_pretrained(plain))


def test_a_config_without_dtype_leads_to_that_of_the_weights(roundtrips, tmp_path):
    dense, *_ = roundtrips("gpt2", torch.float16)
    config = json.loads((dense / "config.json").read_text())
    del config["dtype"]
    (dense / "config.json").write_text(json.dumps(config))
    compress(dense, tmp_path / "out", k=K, workers=1)
    assert AutoModelForCausalLM.from_pretrained(dense).dtype == torch.float16
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.float16


def test_a_model_in_several_shards(roundtrips, tmp_path, monkeypatch):
    dense, _, plain = roundtrips("qwen3-moe")
    monkeypatch.setattr("isotone.plan.job.plan_shards", _small_shards())
    compress(dense, tmp_path / "out", k=K, workers=1)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 2
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert_same(model, AutoModelForCausalLM.from_pretrained(plain))


def _small_shards():
    from isotone.plan.shards import plan_shards

    return lambda plans: plan_shards(plans, 30_000)


def test_the_base_model_alone(roundtrips):
    _, out, plain = roundtrips("llama-untied")
    model, other = AutoModel.from_pretrained(out), AutoModel.from_pretrained(plain)
    assert torch.equal(model(ids())[0], other(ids())[0])


def test_pipeline(roundtrips):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    _, out, plain = roundtrips("llama-tied")
    words = {"[UNK]": 0, **{f"w{i}": i for i in range(1, 160)}}
    tokenizer = Tokenizer(models.WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[UNK]").save_pretrained(out)
    say = pipeline("text-generation", str(out))
    ours = say("w5 w6 w7", max_new_tokens=8, do_sample=False)
    other = pipeline("text-generation", str(plain), tokenizer=say.tokenizer)
    assert ours == other("w5 w6 w7", max_new_tokens=8, do_sample=False)


@pytest.mark.parametrize("kind", ["llama-tied", "qwen3-moe", "gpt2"])
def test_saved_as_an_ordinary_model(kind, roundtrips, tmp_path):
    _, out, _ = roundtrips(kind)
    model = AutoModelForCausalLM.from_pretrained(out)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert "quantization_config" not in config
    assert "transformers_weights" not in config
    assert_same(AutoModelForCausalLM.from_pretrained(tmp_path), model)


def test_the_config_comes_back(roundtrips):
    dense, out, plain = roundtrips("gemma3")
    original = json.loads((dense / "config.json").read_text())
    assert json.loads((plain / "config.json").read_text()) == original
    assert verify(out, against=dense).ok
    assert isinstance(AutoConfig.from_pretrained(out), type(config_of("gemma3")))
