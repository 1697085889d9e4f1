"""Tiny GGUF models of several architectures, with every kind of tensor that readers tell apart."""

from __future__ import annotations

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

CHARACTERS = [chr(code) for code in range(ord("!"), ord("~") + 1)]
TOKENS = [*CHARACTERS, "Ġ", "th", "the", "Ġthe", "<|start|>", "<|end|>"]
MERGES = ["t h", "th e", "Ġ the"]
CHAT = "{% for m in messages %}<|start|>{{ m['content'] }}<|end|>{% endfor %}"


def write(path, architecture, numbers, tensors, tokenizer=True):
    """A GGUF file; `tensors` maps names to (array, type)."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in numbers.items():
        add = {int: writer.add_uint32, float: writer.add_float32, list: writer.add_array}
        add[type(value)](f"{architecture}.{key}", value)
    if tokenizer:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(TOKENS)
        writer.add_token_types([3 if token.startswith("<|") else 1 for token in TOKENS])
        writer.add_token_merges(MERGES)
        writer.add_bos_token_id(TOKENS.index("<|start|>"))
        writer.add_eos_token_id(TOKENS.index("<|end|>"))
        writer.add_chat_template(CHAT)
    for name, (array, kind) in tensors.items():
        writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def filled(shapes):
    """Arrays of weights by name from (shape, type) by name."""
    generator = np.random.default_rng(0)
    return {
        name: ((generator.standard_normal(shape) * 0.1).astype(np.float32), kind)
        for name, (shape, kind) in shapes.items()
    }


def block(index, shapes):
    return {f"blk.{index}.{name}": shape for name, shape in shapes.items()}


LLAMA = {
    "block_count": 2,
    "context_length": 64,
    "embedding_length": 64,
    "feed_forward_length": 96,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.dimension_count": 16,
    "rope.freq_base": 10000.0,
    "vocab_size": len(TOKENS),
}


def llama(tied=True):
    layers = [
        # Queries and keys, whose rows move, once in blocks and once in plain floats.
        (Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.F16, Type.BF16, Type.F32),
        (Type.BF16, Type.F16, Type.Q8_0, Type.F32, Type.Q5_0, Type.Q4_0, Type.Q4_1),
    ]
    shapes = {
        "token_embd.weight": ((len(TOKENS), 64), Type.Q8_0),
        "output_norm.weight": ((64,), Type.F32),
    }
    for index, (q, k, v, o, gate, up, down) in enumerate(layers):
        shapes |= block(
            index,
            {
                "attn_norm.weight": ((64,), Type.F32),
                "attn_q.weight": ((64, 64), q),
                "attn_k.weight": ((32, 64), k),
                "attn_v.weight": ((32, 64), v),
                "attn_output.weight": ((64, 64), o),
                "ffn_norm.weight": ((64,), Type.F32),
                "ffn_gate.weight": ((96, 64), gate),
                "ffn_up.weight": ((96, 64), up),
                "ffn_down.weight": ((64, 96), down),
            },
        )
    if not tied:
        shapes |= {
            "output.weight": ((len(TOKENS), 64), Type.Q4_1),
            "rope_freqs.weight": ((8,), Type.F32),
        }
    return "llama", LLAMA, filled(shapes)


def gpt2():
    numbers = {
        "block_count": 1,
        "context_length": 1024,
        "embedding_length": 32,
        "feed_forward_length": 128,
        "attention.head_count": 2,
        "attention.layer_norm_epsilon": 1e-5,
    }
    norms = {
        f"{name}.{part}": ((32,), Type.F32)
        for name in ("attn_norm", "ffn_norm")
        for part in ("weight", "bias")
    }
    shapes = {
        "token_embd.weight": ((len(TOKENS), 32), Type.F16),
        "position_embd.weight": ((1024, 32), Type.F32),
        "output_norm.weight": ((32,), Type.F32),
        "output_norm.bias": ((32,), Type.F32),
        "output.weight": ((len(TOKENS), 32), Type.Q8_0),
    } | block(
        0,
        norms
        | {
            "attn_qkv.weight": ((96, 32), Type.Q8_0),
            "attn_qkv.bias": ((96,), Type.F32),
            "attn_output.weight": ((32, 32), Type.F16),
            "attn_output.bias": ((32,), Type.F32),
            "ffn_up.weight": ((128, 32), Type.F32),
            "ffn_up.bias": ((128,), Type.F32),
            "ffn_down.weight": ((32, 128), Type.BF16),
            "ffn_down.bias": ((32,), Type.F32),
        },
    )
    return "gpt2", numbers, filled(shapes)


def qwen3_mixture():
    numbers = {
        "block_count": 1,
        "context_length": 64,
        "embedding_length": 32,
        "feed_forward_length": 64,
        "attention.head_count": 2,
        "attention.head_count_kv": 1,
        "attention.key_length": 16,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 10000.0,
        "vocab_size": len(TOKENS),
        "expert_count": 3,
        "expert_used_count": 2,
    }
    inner = 768  # what transformers takes for granted: it does not read the file's width of experts
    shapes = {
        "token_embd.weight": ((len(TOKENS), 32), Type.Q8_0),
        "output_norm.weight": ((32,), Type.F32),
    } | block(
        0,
        {
            "attn_norm.weight": ((32,), Type.F32),
            "attn_q.weight": ((32, 32), Type.Q8_0),
            "attn_k.weight": ((16, 32), Type.Q8_0),
            "attn_v.weight": ((16, 32), Type.Q8_0),
            "attn_output.weight": ((32, 32), Type.Q8_0),
            "attn_q_norm.weight": ((16,), Type.F32),
            "attn_k_norm.weight": ((16,), Type.F32),
            "ffn_norm.weight": ((32,), Type.F32),
            "ffn_gate_inp.weight": ((3, 32), Type.F32),
            "ffn_gate_exps.weight": ((3, inner, 32), Type.Q4_0),
            "ffn_up_exps.weight": ((3, inner, 32), Type.Q5_1),
            "ffn_down_exps.weight": ((3, 32, inner), Type.Q8_0),
        },
    )
    return "qwen3moe", numbers, filled(shapes)


def gemma2():
    numbers = {
        "block_count": 1,
        "context_length": 64,
        "embedding_length": 32,
        "feed_forward_length": 64,
        "attention.head_count": 2,
        "attention.head_count_kv": 1,
        "attention.key_length": 16,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.sliding_window": 32,
        "vocab_size": len(TOKENS),
    }
    norms = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    shapes = {
        "token_embd.weight": ((len(TOKENS), 32), Type.BF16),
        "output_norm.weight": ((32,), Type.F16),
    } | block(
        0,
        {f"{name}.weight": ((32,), Type.F32) for name in norms}
        | {
            "attn_q.weight": ((32, 32), Type.BF16),
            "attn_k.weight": ((16, 32), Type.BF16),
            "attn_v.weight": ((16, 32), Type.BF16),
            "attn_output.weight": ((32, 32), Type.BF16),
            "ffn_gate.weight": ((64, 32), Type.BF16),
            "ffn_up.weight": ((64, 32), Type.BF16),
            "ffn_down.weight": ((32, 64), Type.BF16),
        },
    )
    return "gemma2", numbers, filled(shapes)


MODELS = {
    "llama": llama(),
    "llama, untied": llama(tied=False),
    "gpt2": gpt2(),
    "qwen3moe": qwen3_mixture(),
    "gemma2": gemma2(),
}
