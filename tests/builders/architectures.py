"""Small random models of many architectures of transformers, each in the ways people save them."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LAYERS = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
PLAIN = {**LAYERS, "intermediate_size": 48, "max_position_embeddings": 64}
GATED = {**PLAIN, "num_key_value_heads": 1, "head_dim": 16}
EXPERTS = {**GATED, "moe_intermediate_size": 24, "num_experts_per_tok": 2}
TWO_STACKS = {"vocab_size": 96, "d_model": 32, "decoder_start_token_id": 0}
TWO_STACKS |= {f"{side}_layers": 2 for side in ("encoder", "decoder")}
TWO_STACKS |= {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
TWO_STACKS |= {f"{side}_ffn_dim": 48 for side in ("encoder", "decoder")}
TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TOWER |= {"intermediate_size": 48, "image_size": 16, "patch_size": 8}
MLA = {"kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
MLA |= {"v_head_dim": 16, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 2}
MLA |= {"topk_group": 1, "first_k_dense_replace": 1, "num_key_value_heads": 2}

# The class of each model, and the settings of its config.
MODELS = {
    "llama": ("LlamaForCausalLM", {**GATED, "tie_word_embeddings": True}),
    "llama-untied": ("LlamaForCausalLM", {**GATED, "tie_word_embeddings": False}),
    "gpt2": (
        "GPT2LMHeadModel",
        {"vocab_size": 96, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2},
    ),
    "gpt-neox": ("GPTNeoXForCausalLM", {**PLAIN, "tie_word_embeddings": False}),
    "opt": ("OPTForCausalLM", {**PLAIN, "ffn_dim": 48, "word_embed_proj_dim": 16}),
    "bloom": ("BloomForCausalLM", {"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 2}),
    "falcon": ("FalconForCausalLM", LAYERS),
    "phi": ("PhiForCausalLM", PLAIN),
    "gemma2": ("Gemma2ForCausalLM", {**GATED, "sliding_window": 8}),
    "gemma3": (
        "Gemma3ForConditionalGeneration",
        {
            "text_config": {**GATED, "vocab_size": 104, "sliding_window": 8},
            "vision_config": TOWER,
            "mm_tokens_per_image": 4,
            "image_token_index": 100,
            "boi_token_index": 101,
            "eoi_token_index": 102,
        },
    ),
    "qwen2": ("Qwen2ForCausalLM", {**PLAIN, "num_key_value_heads": 1}),
    "qwen3-moe": ("Qwen3MoeForCausalLM", {**EXPERTS, "num_experts": 4}),
    "mixtral": ("MixtralForCausalLM", {**EXPERTS, "num_local_experts": 4}),
    "deepseek": ("DeepseekV3ForCausalLM", {**EXPERTS, **MLA}),
    "t5": (
        "T5ForConditionalGeneration",
        {"vocab_size": 96, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2},
    ),
    "bart": ("BartForConditionalGeneration", {**TWO_STACKS, "max_position_embeddings": 64}),
    "marian": ("MarianMTModel", {**TWO_STACKS, "max_position_embeddings": 64}),
    "whisper": (
        "WhisperForConditionalGeneration",
        {**TWO_STACKS, "num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 16},
    ),
    "mamba": ("MambaForCausalLM", {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2}),
    "rwkv": (
        "RwkvForCausalLM",
        {**PLAIN, "attention_hidden_size": 32, "tie_word_embeddings": True},
    ),
    "bert": ("BertForMaskedLM", PLAIN),
    "roberta": ("RobertaForSequenceClassification", PLAIN),
    "clip": (
        "CLIPModel",
        {"text_config": PLAIN, "vision_config": TOWER, "projection_dim": 32},
    ),
    "chinese-clip": (  # loading zeroes the embedding of its padding token
        "ChineseCLIPModel",
        {"text_config": PLAIN, "vision_config": TOWER, "projection_dim": 32},
    ),
    "ctrl": (
        "CTRLLMHeadModel",
        {"vocab_size": 96, "n_positions": 64, "n_embd": 32, "dff": 48, "n_layer": 2, "n_head": 2},
    ),
    "llava": (
        "LlavaForConditionalGeneration",
        {
            "text_config": {"model_type": "llama", **GATED, "tie_word_embeddings": True},
            "vision_config": {"model_type": "clip_vision_model", **TOWER},
            "image_token_index": 90,
        },
    ),
}


def make_model(kind):
    """A model of a kind; every parameter is random, so that none can stand for another."""
    name, settings = MODELS[kind]
    model_class = getattr(transformers, name)
    plain = {} if "text_config" in settings else TOKENS
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**plain, **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.05)
    return model


def in_one_file(model, path):
    """What `save_pretrained` writes."""
    model.save_pretrained(path)


def in_shards(model, path):
    """Several files and an index."""
    model.save_pretrained(path, max_shard_size="30KB")
    assert (path / "model.safetensors.index.json").is_file()


def with_copies(model, path):
    """Tied weights stored under each of their names, by a program that does not look for ties."""
    model.save_pretrained(path)

    def store(tensors):
        copies = {name: model.get_parameter(name).detach() for name in model.all_tied_weights_keys}
        return {**tensors, **{name: tensor.clone() for name, tensor in copies.items()}}

    _rewrite(path, store)


def without_the_key(model, path):
    """Copies again, and a config that does not say what is tied."""
    with_copies(model, path)
    config = json.loads((path / "config.json").read_text())
    config.pop("tie_word_embeddings", None)
    (path / "config.json").write_text(json.dumps(config))


def without_prefix(model, path):
    """Names without the prefix that the model gives to its base."""
    model.save_pretrained(path)
    prefix = model.base_model_prefix + "."
    _rewrite(path, lambda tensors: {k.removeprefix(prefix): t for k, t in tensors.items()})


def from_its_base(model, path):
    """The base model alone, whose config names the whole one; its head is new."""
    model.base_model.save_pretrained(path)


def with_old_names(model, path):
    """The names of norms in the first checkpoints of BERT."""
    model.save_pretrained(path)

    def rename(name):
        if "LayerNorm" not in name:
            return name
        return name.replace(".weight", ".gamma").replace(".bias", ".beta")

    _rewrite(path, lambda tensors: {rename(name): tensor for name, tensor in tensors.items()})


def with_an_adapter_beside(model, path):
    """An adapter of PEFT that was saved into the folder of its model: loading applies it."""
    model.save_pretrained(path)
    model.name_or_path = str(path)
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(model, config).save_pretrained(path)


def _rewrite(path, change):
    tensors = load_file(path / "model.safetensors")
    save_file(change(tensors), path / "model.safetensors", metadata={"format": "pt"})
