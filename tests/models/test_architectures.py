"""Models of transformers' own classes: compressed, decompressed, loaded, weight by weight."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from isotone.codec.arrays import SUFFIXES, StoredArray
from isotone.errors import InputError
from isotone.pipeline.compress import compress
from isotone.pipeline.decompress import decompress
from isotone.pipeline.verify import verify
from tests.builders.arrays import tensor_of_arrays

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 64,
}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

# Name of the class: its config, and what it has that needs care: (tensor, number of matrices).
MODELS = {
    "llama tied": (
        "LlamaForCausalLM",
        SMALL | {"tie_word_embeddings": True},
        {"model.embed_tokens.weight": 1, "model.layers.0.mlp.down_proj.weight": 1},
    ),
    "llama untied": (
        "LlamaForCausalLM",
        SMALL | {"tie_word_embeddings": False},
        {"model.embed_tokens.weight": 1, "lm_head.weight": 1},
    ),
    "gpt2, whose Conv1D is transposed": (
        "GPT2LMHeadModel",
        {"vocab_size": 128, "n_positions": 64, "n_embd": 64, "n_layer": 1, "n_head": 4} | IDS,
        {"transformer.h.0.attn.c_attn.weight": 1, "transformer.wpe.weight": 1},
    ),
    "opt": (
        "OPTForCausalLM",
        {
            "vocab_size": 128,
            "hidden_size": 64,
            "num_hidden_layers": 1,
            "ffn_dim": 96,
            "max_position_embeddings": 64,
            "num_attention_heads": 4,
            "word_embed_proj_dim": 64,
        },
        {"model.decoder.layers.0.fc1.weight": 1, "model.decoder.embed_positions.weight": 1},
    ),
    "qwen3 mixture, experts apart": (
        "Qwen3MoeForCausalLM",
        SMALL
        | {"head_dim": 16, "moe_intermediate_size": 48, "num_experts": 4, "num_experts_per_tok": 2},
        {"model.layers.0.mlp.experts.3.down_proj.weight": 1},
    ),
    "gpt-oss, experts fused": (
        "GptOssForCausalLM",
        SMALL
        | {
            "head_dim": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        {"model.layers.0.mlp.experts.gate_up_proj": 4, "model.layers.0.mlp.experts.down_proj": 4},
    ),
    "whisper, convolutions over one axis": (
        "WhisperForConditionalGeneration",
        {
            "vocab_size": 128,
            "d_model": 64,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 96,
            "decoder_ffn_dim": 96,
            "num_mel_bins": 16,
            "max_source_positions": 32,
            "max_target_positions": 32,
            "decoder_start_token_id": 1,
        }
        | IDS,
        {"model.encoder.conv1.weight": 1, "model.encoder.conv2.weight": 1},
    ),
    "resnet, convolutions over two": (
        "ResNetForImageClassification",
        {
            "embedding_size": 16,
            "hidden_sizes": [16, 32],
            "depths": [1, 1],
            "layer_type": "basic",
            "num_labels": 3,
        },
        {"resnet.embedder.embedder.convolution.weight": 1},
    ),
}


def saved(name, path, dtype=torch.bfloat16):
    kind = getattr(transformers, MODELS[name][0])
    torch.manual_seed(0)
    model = kind(kind.config_class(**MODELS[name][1])).to(dtype)
    model.save_pretrained(path)
    return kind


def clustered_weights(directory):
    """What ClusteredTensor.dense() gives for each clustered tensor of a directory of one shard."""
    views = {torch.uint8: "U8", torch.uint16: "U16", torch.float32: "F32"}
    stored = load_file(directory / "model.safetensors")
    dense = {}
    for record in json.loads((directory / "isotone.json").read_text())["clustered"]:
        arrays = {}
        for suffix in SUFFIXES:
            array = stored.get(record["name"] + suffix)
            if array is not None and suffix == "_protected_value":
                patterns = array.view(torch.int16).numpy().view("<u2")
                arrays[suffix] = StoredArray(record["dtype"], patterns)
            elif array is not None:
                arrays[suffix] = StoredArray(views[array.dtype], array.numpy())
        dense[record["name"]] = torch.from_numpy(tensor_of_arrays(arrays, record["name"]).dense())
    return dense


@pytest.mark.parametrize("name", MODELS)
def test_what_is_decompressed_loads_and_is_what_was_clustered(name, tmp_path):
    kind = saved(name, tmp_path / "model")
    summary = compress(tmp_path / "model", tmp_path / "out", k=16)
    assert verify(tmp_path / "out", against=tmp_path / "model").ok
    decompress(tmp_path / "out", tmp_path / "dense")

    before = load_file(tmp_path / "model" / "model.safetensors")
    after = load_file(tmp_path / "dense" / "model.safetensors")
    clustered = clustered_weights(tmp_path / "out")
    assert after.keys() == before.keys()
    for key, tensor in after.items():
        assert tensor.dtype == before[key].dtype
        expected = clustered[key].to(tensor.dtype) if key in clustered else before[key]
        assert torch.equal(tensor, expected)
        if key not in clustered:
            assert tensor.ndim < 2 or "bias" in key or tensor.numel() < 600  # too small to gain

    records = json.loads((tmp_path / "out" / "isotone.json").read_text())["clustered"]
    heights = {record["name"]: record["n_matrices"] for record in records}
    assert MODELS[name][2].items() <= heights.items()
    assert summary.coverage > 0.9

    model, info = kind.from_pretrained(
        tmp_path / "dense", dtype=torch.bfloat16, output_loading_info=True
    )
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys"))
    again = tmp_path / "again"
    model.save_pretrained(again)
    for key, tensor in load_file(again / "model.safetensors").items():
        assert torch.equal(tensor, after[key]), key


def test_a_qwen3_mixture_with_fused_experts(tmp_path):
    name = "qwen3 mixture, experts apart"
    kind = saved(name, tmp_path / "model")
    model = kind.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    fused = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    assert fused["model.layers.0.mlp.experts.gate_up_proj"].shape == (4, 96, 64)
    save_file(fused, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    compress(tmp_path / "model", tmp_path / "out")
    records = json.loads((tmp_path / "out" / "isotone.json").read_text())["clustered"]
    heights = {record["name"]: record["n_matrices"] for record in records}
    assert heights["model.layers.0.mlp.experts.gate_up_proj"] == 4
    assert heights["model.layers.0.mlp.experts.down_proj"] == 4
    decompress(tmp_path / "out", tmp_path / "dense")
    loaded = kind.from_pretrained(tmp_path / "dense", dtype=torch.bfloat16).state_dict()
    for key, tensor in clustered_weights(tmp_path / "out").items():
        assert torch.equal(loaded[key].float(), tensor), key


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_every_dtype_that_a_model_comes_in(dtype, tmp_path):
    saved("llama tied", tmp_path / "model", dtype)
    if dtype == torch.float64:
        with pytest.raises(InputError, match="none of the 11 tensors would be clustered"):
            compress(tmp_path / "model", tmp_path / "out")
        return
    compress(tmp_path / "model", tmp_path / "out")
    assert verify(tmp_path / "out", against=tmp_path / "model").ok
    decompress(tmp_path / "out", tmp_path / "dense")
    loaded = load_file(tmp_path / "dense" / "model.safetensors")
    assert {tensor.dtype for tensor in loaded.values()} == {dtype}


def test_dtypes_that_are_kept_come_back_bit_for_bit(tmp_path):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(40, 40, generator=generator)
    kept = {
        "a": matrix.to(torch.float8_e4m3fn),
        "b": matrix.to(torch.float8_e5m2),
        "c": matrix.double(),
        "d": (9 * matrix).to(torch.int8),
        "e": matrix > 0,
        "f": (9 * matrix).to(torch.int32),
    }
    save_file(kept | {"w": matrix}, tmp_path / "x.safetensors")
    compress(tmp_path / "x.safetensors", tmp_path / "out")
    for directory in ("out", "dense"):
        if directory == "dense":
            decompress(tmp_path / "out", tmp_path / "dense")
        loaded = load_file(tmp_path / directory / "model.safetensors")
        for key, tensor in kept.items():
            assert loaded[key].dtype == tensor.dtype
            assert torch.equal(loaded[key].view(torch.uint8), tensor.view(torch.uint8))
