"""Make a checkpoint with Llama-3.1-8B's exact shapes and heavy-tailed values, without a download.

291 tensors, 16.06 GB of bf16 in 4 shards, as the hub has them. `--gigabytes 1` and `4` keep the
shapes of a layer and take a sixteenth and a fourth of the layers and of the vocabulary, so that the
mix of matrices stays the same.

A row of a matrix is a stretch, from a random place, of one long pool of Student-t values, times a
scale of its own: rows of one matrix differ in scale as those of a trained model do, and no two
matrices are alike. Seven degrees of freedom give about the bits, the distortion and the share of
protected weights that SmolLM2 has. Deterministic by seed; memory is that of the pool.
"""

import argparse
import json
import math
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from isotone.checkpoint.files.safetensors_writer import DenseShard
from isotone.checkpoint.files.tensor_info import TensorInfo

DEFAULT = Path(__file__).resolve().parents[2] / "work" / "synthetic-llama"
SIZES = (1, 4, 16)

_WIDTH, _INNER, _KEYS, _LAYERS, _VOCABULARY = 4096, 14336, 1024, 32, 128256
_SHARD_BYTES = 5_000_000_000
_POOL = 1 << 24
_FREEDOM = 7
_PIECE_WEIGHTS = 1 << 19
_SPREAD = 0.02  # standard deviation of a row of typical scale
_SCALE_SPREAD = 0.25  # of the logarithm of a row's scale


def synthetic_llama(out: Path, gigabytes: int = 16, seed: int = 0) -> Path:
    """Make the directory if it does not exist, under a temporary name until it is complete."""
    if out.is_dir():
        return out
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    pool = _pool(seed)
    shards = _shards(list(tensors(gigabytes)))
    weight_map = {}
    position = 0
    for i, group in enumerate(shards):
        name = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        weight_map |= {tensor.name: name for tensor in group}
        _write_shard(partial / name, group, pool, [seed, position])
        position += len(group)
    total = sum(tensor.n_bytes for group in shards for tensor in group)
    _write_json(
        partial / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": weight_map},
    )
    _write_json(partial / "config.json", config(gigabytes))
    partial.rename(out)
    return out


def tensors(gigabytes: int) -> Iterator[TensorInfo]:
    """Return every tensor, in the order of the hub's checkpoint."""
    vocabulary = _VOCABULARY * gigabytes // 16
    yield TensorInfo("model.embed_tokens.weight", "BF16", (vocabulary, _WIDTH))
    for layer in range(_LAYERS * gigabytes // 16):
        for name, shape in (
            ("input_layernorm", (_WIDTH,)),
            ("mlp.down_proj", (_WIDTH, _INNER)),
            ("mlp.gate_proj", (_INNER, _WIDTH)),
            ("mlp.up_proj", (_INNER, _WIDTH)),
            ("post_attention_layernorm", (_WIDTH,)),
            ("self_attn.k_proj", (_KEYS, _WIDTH)),
            ("self_attn.o_proj", (_WIDTH, _WIDTH)),
            ("self_attn.q_proj", (_WIDTH, _WIDTH)),
            ("self_attn.v_proj", (_KEYS, _WIDTH)),
        ):
            yield TensorInfo(f"model.layers.{layer}.{name}.weight", "BF16", shape)
    yield TensorInfo("model.norm.weight", "BF16", (_WIDTH,))
    yield TensorInfo("lm_head.weight", "BF16", (vocabulary, _WIDTH))


def config(gigabytes: int) -> dict[str, object]:
    """Return Llama-3.1-8B's config.json for the given numbers of layers and tokens."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
        "hidden_act": "silu",
        "hidden_size": _WIDTH,
        "initializer_range": 0.02,
        "intermediate_size": _INNER,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": 32,
        "num_hidden_layers": _LAYERS * gigabytes // 16,
        "num_key_value_heads": 8,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": _VOCABULARY * gigabytes // 16,
    }


def _shards(group: list[TensorInfo]) -> list[list[TensorInfo]]:
    shards: list[list[TensorInfo]] = [[]]
    for tensor in group:
        if shards[-1] and sum(t.n_bytes for t in shards[-1]) + tensor.n_bytes > _SHARD_BYTES:
            shards.append([])
        shards[-1].append(tensor)
    return shards


def _pool(seed: int) -> np.ndarray:
    """Return Student-t values of unit variance, float32 `[_POOL]`."""
    pool = np.random.default_rng(seed).standard_t(_FREEDOM, _POOL)
    return (pool * math.sqrt((_FREEDOM - 2) / _FREEDOM)).astype(np.float32)


def _write_shard(path: Path, group: list[TensorInfo], pool: np.ndarray, seed: list[int]) -> None:
    shard = DenseShard(path, group)
    threads = min(len(group), os.cpu_count() or 1)

    def write(i: int) -> None:
        offset = 0
        for piece in _pieces(group[i], pool, np.random.default_rng([*seed, i])):
            shard.write(group[i].name, offset, piece.view(np.uint8))
            offset += piece.nbytes

    with ThreadPoolExecutor(threads) as executor:
        for _ in executor.map(write, range(len(group))):
            pass
    shard.finish()


def _pieces(
    tensor: TensorInfo, pool: np.ndarray, random: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield the weights of a tensor as bf16 bit patterns, a few rows at a time."""
    if len(tensor.shape) == 1:
        yield _round(random.normal(0.5, 0.1, tensor.shape).astype(np.float32))
        return
    n_rows, n_columns = tensor.shape
    stretches = np.lib.stride_tricks.sliding_window_view(pool, n_columns)
    height = _PIECE_WEIGHTS // n_columns
    for start in range(0, n_rows, height):
        n = min(height, n_rows - start)
        scales = _SPREAD * np.exp(random.normal(0.0, _SCALE_SPREAD, (n, 1)))
        rows = stretches[random.integers(0, len(stretches), n)]
        rows *= scales.astype(np.float32)
        yield _round(rows.reshape(-1))


def _round(values: np.ndarray) -> np.ndarray:
    """Round float32 to the nearest bf16 bit patterns; the argument is overwritten."""
    bits = values.view(np.uint32)
    bits += np.uint32(0x8000)
    return bits.view(np.uint16)[1::2].copy()


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", nargs="?", type=Path, default=DEFAULT, metavar="OUT")
    parser.add_argument("--gigabytes", type=int, choices=SIZES, default=16)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(synthetic_llama(given.out, given.gigabytes, given.seed))
