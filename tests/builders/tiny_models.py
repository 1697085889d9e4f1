"""Tiny random models from configs, one of each kind that loading must not know about."""

from __future__ import annotations

import torch
import transformers
from transformers import AutoModelForCausalLM

import isotone

K = 16
"""Centroids of the tiny models that tests compress."""

COMMON = {"vocab_size": 160, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
GATED = {**COMMON, "intermediate_size": 48, "num_key_value_heads": 1, "head_dim": 16}
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

CONFIGS = {
    "llama-tied": ("LlamaConfig", {**GATED, "tie_word_embeddings": True}),
    "llama-untied": ("LlamaConfig", {**GATED, "tie_word_embeddings": False}),
    "gemma3": ("Gemma3TextConfig", {**GATED, "sliding_window": 8, "query_pre_attn_scalar": 16}),
    "qwen3": ("Qwen3Config", GATED),
    "qwen3-moe": (
        "Qwen3MoeConfig",
        {**GATED, "moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2},
    ),
    "gpt2": ("GPT2Config", {"vocab_size": 160, "n_embd": 32, "n_layer": 2, "n_head": 2}),
    "opt": ("OPTConfig", {**COMMON, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "phi": ("PhiConfig", {**COMMON, "intermediate_size": 64}),
}


def config_of(kind):
    """The config of a kind of model."""
    name, arguments = CONFIGS[kind]
    return getattr(transformers, name)(**arguments, **TOKENS)


def write_tiny(kind, directory, dtype=torch.bfloat16):
    """A random model of a kind as a dense directory, its weights spread as trained ones are."""
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config_of(kind))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + torch.rand_like(parameter)).add_(0.01 * torch.randn_like(parameter))
    model.to(dtype).save_pretrained(directory)
    return directory


def ids(n=12):
    """Token ids [2, n], the same each time."""
    torch.manual_seed(3)
    return torch.randint(3, 160, (2, n))


def load_clustered(directory, residency="packed", cls=AutoModelForCausalLM, **options):
    """A compressed directory as a model, its ranks packed or its weights dense."""
    config = isotone.IsotoneConfig(residency=residency)
    return cls.from_pretrained(directory, quantization_config=config, **options)
