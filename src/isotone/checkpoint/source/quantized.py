"""Recognises checkpoints whose weights are quantised already, in any of the formats in use.

Most say so in `quantization_config` of their config.json; others in another key, in the config of a
nested model, or in a file beside it. Some say nothing, and are known by their tensors: integers of
8 or 32 bits, or floating numbers of 8 bits, beside scales or zero points of the same module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.model_json import read_json

_KEYS = ("quantization_config", "compression_config", "quantization", "quant_config")
_FILES = {
    "hf_quant_config.json": "ModelOpt",
    "quantize_config.json": "GPTQ",
    "quant_config.json": "AWQ",
}
_FILE = re.compile(r"(hf_)?quant(ize|ization)?(_config)?\.json")
_WIDTHS = ("bits", "w_bit", "wbits", "weight_bits", "num_bits", "nbits")
_GROUPS = ("group_size", "q_group_size")
_NO_METHOD = ("", "none", "null", "false")
_CODES = {"I8", "U8", "I16", "U16", "I32", "U32", "U64"}
_SMALL_FLOATS = re.compile(r"F[468]")
_BESIDE = re.compile(r"scale|zero|absmax|g_idx|^scb$|quant_?(state|map)", re.I)
_PLAIN_SCALE = re.compile(
    r"(layer|logit|attn|residual|res|embed|embedding|gate|output)?_?scale", re.I
)
_POSITIONS = re.compile(r"(^|_)(bias|mask|ids?|index|positions?|tracked|buckets?|len|shape)$", re.I)
_PACKED = re.compile(r"_?q_?weight|w_q|weight_?(packed|qdata|codes)|q_?idxs|trellis|b_q4", re.I)


def quantized_format(
    config: Mapping[str, Any], directory: Path | None, tensors: Sequence[TensorInfo]
) -> str | None:
    """Return the format in which a checkpoint is quantised.

    Parameters
    ----------
    config : mapping
        The content of its config.json.
    directory : Path or None
        The directory with the files beside it; None for a single file.
    tensors : sequence of TensorInfo
        Its tensors.

    Returns
    -------
    str or None
        The name of the format, or the tensor that shows it; None if the weights are the original
        ones.

    Raises
    ------
    FormatError
        If a file beside the weights is not valid JSON.
    """
    for part in _parts(config):
        for key in _KEYS:
            table = part.get(key)
            if isinstance(table, str) and table.lower() not in _NO_METHOD:
                return table
            if isinstance(table, Mapping) and table and (key != "quantization" or _says(table)):
                says = _says(table) or "unknown method"
                return f"MLX, {says}" if key == "quantization" else says
        if _is_narrow(part.get("quantization_bit")):
            return f"quantization_bit {part['quantization_bit']}"
    return _by_files(directory) or _by_tensors(tensors)


def _by_files(directory: Path | None) -> str | None:
    """Return what a file beside the weights says of their format."""
    for path in [] if directory is None else sorted(directory.glob("*quant*.json")):
        if _FILE.fullmatch(path.name) is None:
            continue
        content = read_json(path)
        table = content.get("quantization", content)
        if isinstance(table, Mapping) and (says := _says(table)):
            method = _FILES.get(path.name)
            named = table.get("quant_algo") or (f"{method}, {says}" if method else says)
            return f"{named}, as {path.name} says"
    return None


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a config, and all tables nested in it."""
    yield config
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _parts(value)


def _says(table: Mapping[str, Any]) -> str | None:
    """Return the method that a table names, or how many bits it names; None if neither."""
    for name in ("quant_method", "quant_algo", "quant_library", "format"):
        if isinstance(table.get(name), str):
            return str(table[name])
    if any(_is_narrow(table.get(name)) for name in _WIDTHS):
        return ", ".join(
            f"{n} {table[n]}" for n in (*_WIDTHS, *_GROUPS) if table.get(n) is not None
        )
    return None


def _is_narrow(n_bits: object) -> bool:
    """Return whether a number of bits is that of a quantised weight."""
    return isinstance(n_bits, (int, float)) and 0 < n_bits < 16


def _by_tensors(tensors: Sequence[TensorInfo]) -> str | None:
    """Return which tensor shows by its name, or by what is beside it, that it is quantised."""
    beside: dict[str, str] = {}
    for tensor in tensors:
        module, _, last = tensor.name.rpartition(".")
        word = _BESIDE.search(last)
        if word is None:
            continue
        beside.setdefault(tensor.name[: len(module) + 1 + word.start()].rstrip("._"), tensor.name)
        if not _PLAIN_SCALE.fullmatch(last):
            beside.setdefault(module, tensor.name)
        if "quant" in module:  # as ModelOpt's weight_quantizer._scale
            beside.setdefault(module.rpartition(".")[0], tensor.name)
    for tensor in tensors:
        module, _, last = tensor.name.rpartition(".")
        if not _is_coded(tensor) or _BESIDE.search(last) or _POSITIONS.search(last):
            continue
        if _PACKED.fullmatch(last):
            return f"{tensor.name} is of {tensor.dtype}"
        near = beside.get(tensor.name) or beside.get(module)
        if near:
            return f"{tensor.name} is of {tensor.dtype}, and has {near} beside it"
    return None


def _is_coded(tensor: TensorInfo) -> bool:
    """Return whether a tensor may hold codes: a matrix, or a vector that is called a weight."""
    last = tensor.name.rpartition(".")[2]
    if tensor.dtype == "I64":  # positions, counters and shapes, but for a few formats of codes
        return _PACKED.fullmatch(last) is not None
    small = tensor.dtype in _CODES or _SMALL_FLOATS.match(tensor.dtype) is not None
    return small and len(tensor.shape) >= (1 if "weight" in last else 2)
