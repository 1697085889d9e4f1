"""A second reader of the format, written from docs/format.md and sharing no code with isotone.

Slow and plain: what it is for is to disagree.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np

FORMATS = ["BF16", "F16", "F32"]
STORED = {
    "BF16": "<u2",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "I64": "<i8",
    "I32": "<i4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}


def read_safetensors(path):
    """{name: (dtype tag, array)}; BF16 as patterns."""
    content = Path(path).read_bytes()
    length = int.from_bytes(content[:8], "little")
    arrays = {}
    for name, entry in json.loads(content[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            array = np.frombuffer(content[begin:end], STORED[entry["dtype"]])
            arrays[name] = entry["dtype"], array.reshape(entry["shape"])
    return arrays


def read_directory(directory):
    """{name: (dtype tag, array)} of the dense model; BF16 as patterns."""
    manifest, arrays = read_stored(Path(directory))
    dense = {}
    for record in manifest["clustered"]:
        parts = {
            name.removeprefix(record["name"]): array
            for name, (_, array) in arrays.items()
            if name.startswith(record["name"] + "_")
        }
        dense[record["name"]] = record["dtype"], dense_tensor(parts)
    for record in manifest["kept"]:
        if record["tied_to"] is None:
            dense[record["name"]] = arrays[record["name"]]
    return dense | copies(manifest, dense)


def copies(manifest, dense):
    """The tensors that repeat another one, and that are stored only under the name of that one."""
    tied = [record for record in manifest["kept"] if record["tied_to"]]
    return {record["name"]: dense[record["tied_to"]] for record in tied}


def read_stored(directory):
    """The manifest (of the complete directory), and {name: (dtype tag, array)} of all arrays.

    Of a codebook-only directory: those of its base, its own in their places.
    """
    manifest = json.loads((directory / "isotone.json").read_text("utf-8"))
    if "base" not in manifest:
        files = {record["file"] for record in manifest["clustered"] + manifest["kept"]} - {""}
        shards = [read_safetensors(directory / name) for name in files]
        return manifest, {name: array for shard in shards for name, array in shard.items()}
    complete, arrays = read_stored(find_base(directory, manifest["base"]))
    own = read_safetensors(directory / "model.safetensors")
    for name, (_, array) in own.items():
        assert array.shape == arrays[name][1].shape
    n_bytes = sum(array.nbytes for _, array in own.values())
    assert n_bytes == sum(record["stored_bytes"] for record in manifest["changed"])
    return complete, {**arrays, **own}


def find_base(directory, base):
    """The directory at the recorded path, or beside this one, that has the recorded digest."""
    beside = [path for path in directory.resolve().parent.iterdir() if path.suffix != ".partial"]
    for path in [directory / base["path"], *sorted(beside)]:
        if (path / "isotone.json").is_file() and not path.name.startswith("."):
            manifest = json.loads((path / "isotone.json").read_text("utf-8"))
            if manifest["digest"] == base["digest"]:
                return path
    raise FileNotFoundError(base["digest"])


def dense_tensor(parts):
    """The weights of one tensor, from its arrays by suffix."""
    tag, shape, n_matrices, ranks = unpack(parts["_packed"].tobytes())
    codebook = parts["_codebook"].reshape(n_matrices, -1)
    stacked = parts["_codebook"].ndim == 2
    n_rows = (shape[1:] if stacked else shape)[0]
    values = np.stack([codebook[m][ranks[m]] for m in range(n_matrices)])
    values = values.reshape(n_matrices, n_rows, -1)
    if "_row_scale" in parts:
        values = values * scales(parts["_row_scale"]).reshape(n_matrices, n_rows, 1)
    if "_column_scale" in parts:
        values = values * scales(parts["_column_scale"]).reshape(n_matrices, 1, -1)
    weights = rounded(values.reshape(-1), tag)
    position, n_read = -1, 0
    for entry in parts.get("_protected_index", ()):
        position += int(entry) + (entry < 65535)
        if entry < 65535:
            weights[position] = parts["_protected_value"][n_read]
            n_read += 1
    return weights.reshape(shape)


def scales(stored):
    """float32 scales, of numbers or of codes."""
    if stored.dtype != np.uint8:
        return stored.astype("<f4")
    powers = [2.0 ** ((code - 128) / 8) for code in stored.reshape(-1).tolist()]
    return np.array(powers).astype("<f4")


def rounded(values, tag):
    """float32 to a format, to nearest, ties to even, never to infinity."""
    if tag == "F32":
        return values.copy()
    if tag == "F16":
        return np.clip(values, -65504, 65504).astype("<f2")
    patterns = []
    for value in values.tolist():
        bits = struct.unpack("<I", struct.pack("<f", value))[0]
        high, low = divmod(bits, 1 << 16)
        up = low > 1 << 15 or (low == 1 << 15 and high % 2 == 1)
        patterns.append(high + (up and high & 0x7FFF != 0x7F7F))
    return np.array(patterns, "<u2")


def unpack(packed):
    """dtype tag, shape, number of matrices, and [matrices, weights of each] ranks."""
    magic, layout, code, n_axes, _, k, _, n_matrices, chunk = struct.unpack_from(
        "<4sBBBBHHII", packed
    )
    assert (magic, layout) == (b"ISOT", 1)
    shape = struct.unpack_from(f"<{n_axes}Q", packed, 20)
    size = math.prod(shape) // n_matrices
    chunks = math.ceil(size / chunk)
    at = 20 + 8 * n_axes
    lengths = struct.unpack_from(f"<{n_matrices * chunks}I", packed, at)
    at += 4 * len(lengths)
    ranks = []
    for i, length in enumerate(lengths):
        n = min(chunk, size - i % chunks * chunk)
        coded = packed[at : at + length % (1 << 31)]
        at += len(coded)
        ranks += fixed_width(coded, k, n) if length >> 31 else rans(coded, max(k, 2), n)
    assert not any(packed[at:])
    assert len(packed) == math.ceil(at / 8) * 8
    assert max(ranks) < k
    return FORMATS[code], shape, n_matrices, np.array(ranks).reshape(n_matrices, size)


def fixed_width(coded, k, n):
    """Ranks of a chunk at a fixed width."""
    width = max(1, (k - 1).bit_length())
    assert len(coded) == (width * n + 7) // 8
    number = int.from_bytes(coded, "little")
    assert number >> (width * n) == 0
    text = f"{number:0{width * n}b}"
    return [int(text[len(text) - width * (i + 1) : len(text) - width * i], 2) for i in range(n)]


def rans(coded, k, n):
    """Ranks of an rANS chunk, word by word."""
    frequency = [int.from_bytes(coded[2 * s : 2 * s + 2], "little") for s in range(k)]
    assert sum(frequency) == 4096
    start = [sum(frequency[:s]) for s in range(k)]
    rank_of_slot = [s for s in range(k) for _ in range(frequency[s])]
    head = 2 * k + 128
    states = [int.from_bytes(coded[i : i + 4], "little") for i in range(2 * k, head, 4)]
    words = iter(range(head, len(coded), 2))
    ranks = []
    for i in range(n):
        x = states[i % 32]
        slot = x & 4095
        rank = rank_of_slot[slot]
        x = frequency[rank] * (x >> 12) + slot - start[rank]
        if x < 65536:
            at = next(words)
            x = (x << 16) | int.from_bytes(coded[at : at + 2], "little")
        states[i % 32] = x
        ranks.append(rank)
    assert next(words, None) is None
    assert states == [65536] * 32
    return ranks
