"""Make a model that computes the same function with strongly uneven rows and columns.

A Llama-like model computes the same when a channel is made larger where it is written and smaller
where it is read: the gain of a norm and the columns of the matrices behind it, the rows of v_proj
and the columns of o_proj, the rows of up_proj and the columns of down_proj. The scales are powers
of two, so not a bit of the function changes. Training or folding may leave such scales in any
model.
"""

import argparse
import json
import math
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

OCTAVES = 1.5


def shaken(dense: Path, out: Path, seed: int = 0) -> Path:
    """Write the model at `dense` (Llama, one shard) with shaken channels, if `out` is missing."""
    if out.is_dir():
        return out
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(dense, partial)
    config = json.loads((dense / "config.json").read_text("utf-8"))
    weights = load_file(partial / "model.safetensors")
    generator = np.random.default_rng(seed)
    for layer in range(config["num_hidden_layers"]):
        _shake_layer(weights, f"model.layers.{layer}.", config, generator)
    save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
    partial.rename(out)
    return out


def _shake_layer(weights, layer: str, config: dict, generator: np.random.Generator) -> None:
    def scales(n: int) -> torch.Tensor:
        exponents = np.round(generator.normal(0.0, OCTAVES, n))
        return torch.from_numpy(np.exp2(exponents)).to(torch.bfloat16)

    def scale(name: str, rows=None, columns=None) -> None:
        weight = weights[layer + name]
        if rows is not None:
            weight = weight * (rows if weight.ndim == 1 else rows[:, None])
        weights[layer + name] = weight if columns is None else weight / columns

    for norm, readers in (
        ("input_layernorm.weight", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
        ("post_attention_layernorm.weight", ("mlp.gate_proj", "mlp.up_proj")),
    ):
        channel = scales(config["hidden_size"])
        scale(norm, rows=channel)
        for reader in readers:
            scale(f"{reader}.weight", columns=channel)
    channel = scales(config["intermediate_size"])
    scale("mlp.up_proj.weight", rows=channel)
    scale("mlp.down_proj.weight", columns=channel)
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    width = config.get("head_dim") or math.floor(config["hidden_size"] / heads)
    channel = scales(groups * width)
    scale("self_attn.v_proj.weight", rows=channel)
    repeated = channel.view(groups, 1, width).expand(groups, heads // groups, width)
    scale("self_attn.o_proj.weight", columns=repeated.reshape(-1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dense", type=Path, metavar="DENSE")
    parser.add_argument("out", type=Path, metavar="OUT")
    given = parser.parse_args()
    print(shaken(given.dense, given.out))
