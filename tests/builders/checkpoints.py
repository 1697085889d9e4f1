"""Tiny checkpoints for the tests, written by a few lines that share no code with isotone."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

DTYPE_OF = {
    np.dtype("<f4"): "F32",
    np.dtype("<f8"): "F64",
    np.dtype("<f2"): "F16",
    np.dtype("<i8"): "I64",
    np.dtype("<i4"): "I32",
    np.dtype("u1"): "U8",
    np.dtype("?"): "BOOL",
}


class Bf16:
    """float32 values cut down to bfloat16, as patterns."""

    def __init__(self, values):
        wide = np.ascontiguousarray(values, "<f4").view("<u4")
        self.patterns = (wide >> 16).astype("<u2")

    @property
    def shape(self):
        return self.patterns.shape

    @property
    def values(self):
        return (self.patterns.astype("<u4") << 16).view("<f4")


def parts(tensor):
    """dtype tag, shape and bytes of a NumPy array or a Bf16."""
    if isinstance(tensor, Bf16):
        return "BF16", tensor.shape, tensor.patterns.tobytes()
    return DTYPE_OF[tensor.dtype], tensor.shape, tensor.tobytes()


def safetensors_bytes(tensors, metadata=None):
    """A safetensors file of {name: array}."""
    header = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for name, tensor in tensors.items():
        dtype, shape, content = parts(tensor)
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        data += content
    return raw_safetensors(json.dumps(header).encode(), data)


def raw_safetensors(header, data=b""):
    """A file of any header text, true or false."""
    return struct.pack("<Q", len(header)) + header + data


def write_model(directory, *shards, config=None, companions=None):
    """A model directory; each shard is {name: array}. Returns the directory."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (directory / "config.json").write_text(json.dumps(config))
    for name, content in (companions or {}).items():
        (directory / name).write_bytes(content)
    weight_map = {}
    for i, tensors in enumerate(shards):
        name = "model.safetensors"
        if len(shards) > 1:
            name = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        (directory / name).write_bytes(safetensors_bytes(tensors, {"format": "pt"}))
        weight_map |= dict.fromkeys(tensors, name)
    if len(shards) > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def weights(*shape, seed=0, scale=0.05):
    """Heavy-tailed float32 weights, as trained matrices have them."""
    return (np.random.default_rng(seed).standard_t(5, shape) * scale).astype("<f4")


def normal(*shape, seed=0, scale=0.02):
    """Normally distributed float32 weights."""
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype("<f4")


def tree(directory):
    """{relative path: bytes} of everything in a directory, hidden files as well."""
    directory = Path(directory)
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def write_tree(directory, files):
    """The inverse of `tree`."""
    for name, content in files.items():
        (Path(directory) / name).parent.mkdir(parents=True, exist_ok=True)
        (Path(directory) / name).write_bytes(content)


CONFIG = {"architectures": ["NobodyHasHeardOfIt"], "model_type": "unheard-of", "hidden": 48}


def one_of_each():
    """One tensor of every kind that is treated in a way of its own."""
    flags = np.random.default_rng(0).random((40, 40)) < 0.5
    return {
        "embed.weight": Bf16(weights(120, 48, seed=1)),
        "mix.0.up.weight": Bf16(weights(64, 48, seed=2)),
        "mix.0.down.weight": weights(48, 64, seed=3).astype("<f2"),
        "mix.1.up.weight": weights(64, 48, seed=4),
        "mix.1.experts.gate_up_proj": Bf16(weights(3, 48, 20, seed=5)),
        "vision.conv.weight": weights(16, 3, 5, 5, seed=6),
        "audio.conv1.weight": weights(40, 36, 33, seed=7),
        "norm.weight": Bf16(1 + weights(48, seed=8)),
        "input_layernorm.weight": weights(40, 40, seed=9),
        "mix.0.up.bias": weights(40, 40, seed=10),
        "row.weight": weights(1, 900, seed=11),
        "double.weight": weights(40, 40, seed=12).astype("<f8"),
        "positions": np.arange(1600, dtype="<i8").reshape(40, 40),
        "mask": flags,
        "small.weight": weights(2, 2, seed=13),
        "step": np.array(7, "<i8"),
        "nothing": np.zeros((0, 48), "<f4"),
    }


CLUSTERED = {  # and the number of matrices
    "embed.weight": 1,
    "mix.0.up.weight": 1,
    "mix.0.down.weight": 1,
    "mix.1.up.weight": 1,
    "mix.1.experts.gate_up_proj": 3,
    "vision.conv.weight": 1,
    "audio.conv1.weight": 1,
}
