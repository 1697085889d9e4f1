"""Copies of an embedding, as checkpoints of transformers hold them, and matrices that are none."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from isotone.models.plugin.config import IsotoneConfig
from isotone.models.swap import swapped
from isotone.pipeline.compress import compress
from isotone.pipeline.decompress import decompress
from isotone.pipeline.verify import verify
from tests.builders.loaded_models import assert_equal, load

LAYERS = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1}
LAYERS |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
LAYERS |= {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0}
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
SMALL |= {"num_attention_heads": 2, "vocab_size": 96}

# Class, settings, the name of the embedding, the names of its copies.
MODELS = {
    "t5": (
        "T5ForConditionalGeneration",
        {"vocab_size": 96, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 1, "num_heads": 2},
        "shared.weight",
        ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"],
    ),
    "bart": (
        "BartForConditionalGeneration",
        {"vocab_size": 96, **LAYERS, **IDS},
        "model.shared.weight",
        ["model.encoder.embed_tokens.weight", "lm_head.weight"],
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        {"vocab_size": 96, "n_embd": 32, "n_layer": 1, "n_head": 2},
        "transformer.wte.weight",
        ["lm_head.weight"],
    ),
    "opt": (
        "OPTForCausalLM",
        {
            "vocab_size": 96,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "ffn_dim": 48,
            "num_attention_heads": 2,
            "word_embed_proj_dim": 32,
        },
        "model.decoder.embed_tokens.weight",
        ["lm_head.weight"],
    ),
    "llama": (
        "LlamaForCausalLM",
        SMALL | {"tie_word_embeddings": True},
        "model.embed_tokens.weight",
        ["lm_head.weight"],
    ),
}


def save_with_copies(path, kind, *, key):
    """Save a small model with its copies stored, its config with or without the key of ties."""
    name, settings, embedding, copies = MODELS[kind]
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, name).config_class(**settings))
    model.save_pretrained(path)
    tensors = load_file(path / "model.safetensors")
    tensors |= {copy: tensors[embedding].clone() for copy in copies}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    config.pop("tie_word_embeddings", None)
    (path / "config.json").write_text(
        json.dumps(config | ({"tie_word_embeddings": True} if key else {}))
    )
    return type(model), set(tensors), [embedding, *copies]


@pytest.mark.parametrize("key", [True, False], ids=["said", "not said"])
@pytest.mark.parametrize("kind", MODELS)
def test_copies_come_back_equal_and_stay_tied(kind, key, tmp_path):
    model_class, names, tied = save_with_copies(tmp_path / "model", kind, key=key)
    before, expected = model_class.from_pretrained(tmp_path / "model", output_loading_info=True)
    compress(tmp_path / "model", tmp_path / "out", bits=3.5, workers=1)
    manifest = json.loads((tmp_path / "out/isotone.json").read_text())
    assert len([record for record in manifest["kept"] if record["tied_to"]]) == len(tied) - 1
    assert verify(tmp_path / "out", against=tmp_path / "model").ok
    decompress(tmp_path / "out", tmp_path / "plain")
    plain = load_file(tmp_path / "plain/model.safetensors")
    assert set(plain) == names
    assert all(torch.equal(plain[name], plain[tied[0]]) for name in tied)
    for residency in ("dense", "packed"):
        options = {"quantization_config": IsotoneConfig(residency=residency)}
        after, info = model_class.from_pretrained(
            tmp_path / "out", output_loading_info=True, **options
        )
        assert info["missing_keys"] == expected["missing_keys"] == set()
        assert info["unexpected_keys"] == expected["unexpected_keys"]
        names_of = {parameter: name for name, parameter in before.named_parameters()}
        assert len(dict(after.named_parameters())) == len(names_of)


def test_two_matrices_of_zeros_are_two_matrices(tmp_path):
    """RWKV starts some of its matrices with zeros; one is called `output`."""
    config = transformers.RwkvConfig(
        vocab_size=96,
        hidden_size=32,
        num_hidden_layers=2,
        attention_hidden_size=32,
        intermediate_size=48,
        tie_word_embeddings=True,
    )
    model = transformers.RwkvForCausalLM(config)
    for name in ("output", "receptance"):
        torch.nn.init.zeros_(getattr(model.rwkv.blocks[1].attention, name).weight)
    model.save_pretrained(tmp_path / "model")
    compress(tmp_path / "model", tmp_path / "out", k=16, workers=1)
    assert verify(tmp_path / "out", against=tmp_path / "model").ok
    after, info = type(model).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not after.rwkv.blocks[1].attention.output.weight.any()


def both_residencies(model_class, path):
    """The model, dense and packed; nothing is missing or unexpected."""
    for residency in ("dense", "packed"):
        config = IsotoneConfig(residency=residency)
        model, info = model_class.from_pretrained(
            path, output_loading_info=True, quantization_config=config
        )
        assert not info["missing_keys"] | info["unexpected_keys"]
        yield model


def weight(module):
    """What a module computes with, as an ordinary tensor."""
    return module.weight.detach().clone()


@pytest.mark.parametrize("said", [True, False])
def test_an_untied_model_with_equal_matrices_gets_both(said, tmp_path):
    """They come back equal and untied, whether its config or the default of its class says so."""
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL))
    model.lm_head.weight.data.copy_(model.model.embed_tokens.weight)
    model.save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    assert config["tie_word_embeddings"] is False
    if not said:
        del config["tie_word_embeddings"]
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    compress(tmp_path / "model", tmp_path / "out", bits=3.5, protect="off", workers=1)
    assert verify(tmp_path / "out", against=tmp_path / "model").ok
    decompress(tmp_path / "out", tmp_path / "plain")
    plain = load_file(tmp_path / "plain/model.safetensors")
    assert torch.equal(plain["lm_head.weight"], plain["model.embed_tokens.weight"])
    for after in both_residencies(type(model), tmp_path / "out"):
        head, embedding = after.lm_head, after.model.embed_tokens
        assert torch.equal(weight(head), plain["lm_head.weight"])
        assert torch.equal(weight(embedding), plain["lm_head.weight"])
        after.save_pretrained(tmp_path / "again")
        again = type(model).from_pretrained(tmp_path / "again")
        assert again.lm_head.weight is not again.model.embed_tokens.weight
        assert torch.equal(again.lm_head.weight, plain["lm_head.weight"])
        assert torch.equal(again.model.embed_tokens.weight, plain["lm_head.weight"])
        with torch.no_grad():  # whatever is trained in one of them does not change the other
            for parameter in head.parameters():
                parameter.mul_(2)
        assert torch.equal(weight(embedding), plain["lm_head.weight"])
        assert torch.equal(weight(head), 2 * plain["lm_head.weight"])


def test_a_head_that_is_not_the_embedding_that_the_config_says_it_is(tmp_path):
    """transformers loads both, and so does what isotone makes of them; edits reach both."""
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SMALL, tie_word_embeddings=False)
    )
    model.save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    config["tie_word_embeddings"] = True
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    compress(tmp_path / "model", tmp_path / "out", k=16, protect="off", workers=1)
    assert verify(tmp_path / "out", against=tmp_path / "model").ok
    decompress(tmp_path / "out", tmp_path / "plain")
    plain = load_file(tmp_path / "plain/model.safetensors")
    for after in both_residencies(type(model), tmp_path / "out"):
        assert torch.equal(weight(after.lm_head), plain["lm_head.weight"])
        assert torch.equal(weight(after.model.embed_tokens), plain["model.embed_tokens.weight"])
        with swapped(after, {"lm_head": lambda tensor: 2 * tensor.codebook}):
            assert torch.equal(weight(after.lm_head), 2 * plain["lm_head.weight"])
            assert torch.equal(weight(after.model.embed_tokens), plain["model.embed_tokens.weight"])


def test_a_tie_that_leads_to_another_matrix_is_not_followed(tmp_path):
    """Encoder and decoder repeat each other, and not the matrix to which T5 would tie them."""
    _, names, _ = save_with_copies(tmp_path / "model", "t5", key=True)
    file = tmp_path / "model/model.safetensors"
    tensors = load_file(file)
    tensors["shared.weight"] = -tensors["shared.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    compress(tmp_path / "model", tmp_path / "out", k=16, workers=1)
    assert verify(tmp_path / "out", against=tmp_path / "model").ok
    decompress(tmp_path / "out", tmp_path / "plain")
    plain = load_file(tmp_path / "plain/model.safetensors")
    assert set(plain) == names
    for after in both_residencies(transformers.T5ForConditionalGeneration, tmp_path / "out"):
        for name in ("shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head"):
            assert torch.equal(weight(after.get_submodule(name)), plain[f"{name}.weight"]), name


@pytest.mark.parametrize("left", ["encoder.embed_tokens.weight", "lm_head.weight"])
def test_a_checkpoint_that_holds_the_shared_matrix_under_another_name(left, tmp_path):
    """transformers ties all names to the one that is stored."""
    _, _, tied = save_with_copies(tmp_path / "model", "t5", key=True)
    file = tmp_path / "model/model.safetensors"
    tensors = {k: t for k, t in load_file(file).items() if k not in tied or k == left}
    save_file(tensors, file, metadata={"format": "pt"})
    compress(tmp_path / "model", tmp_path / "out", k=16, workers=1)
    decompress(tmp_path / "out", tmp_path / "plain")
    plain = load_file(tmp_path / "plain/model.safetensors")
    for after in both_residencies(transformers.T5ForConditionalGeneration, tmp_path / "out"):
        for name in tied:
            module = after.get_submodule(name.removesuffix(".weight"))
            assert torch.equal(weight(module), plain[left]), name


def test_copies_under_names_that_the_model_does_not_know(tmp_path):
    """They are named as unexpected, as of the dense model, and the real ones are right."""
    _, names, tied = save_with_copies(tmp_path / "model", "llama", key=True)
    file = tmp_path / "model/model.safetensors"
    tensors = load_file(file)
    unknown = {"a.embed_tokens.weight", "mtp.shared_head.weight", "model.layers.9.wte.weight"}
    tensors |= {name: tensors[tied[0]].clone() for name in unknown}
    save_file(tensors, file, metadata={"format": "pt"})
    compress(tmp_path / "model", tmp_path / "out", bits=3.5, workers=1)
    assert verify(tmp_path / "out", against=tmp_path / "model").ok
    decompress(tmp_path / "out", tmp_path / "plain")
    plain = load_file(tmp_path / "plain/model.safetensors")
    assert set(plain) == names | unknown
    assert all(torch.equal(plain[name], plain[tied[0]]) for name in unknown)
    reference, expected = load(transformers.LlamaForCausalLM, tmp_path / "plain")
    assert expected["unexpected_keys"] == unknown
    for residency in ("dense", "packed"):
        config = IsotoneConfig(residency=residency)
        after, info = load(transformers.LlamaForCausalLM, tmp_path / "out", config)
        assert info == expected
        assert_equal(after, reference, except_for=set())
