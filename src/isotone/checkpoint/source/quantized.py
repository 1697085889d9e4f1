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
    "quantization_config.json": "unknown method",
}
_WIDTHS = ("bits", "w_bit", "weight_bits", "group_size", "q_group_size", "num_bits")
_CODES = {"I8", "U8", "U16", "I32", "U32"}  # of quantised weights; I64 are positions and masks
_SMALL_FLOATS = re.compile(r"F[468]")
_BESIDE = re.compile(
    r"(^|[._])(w?scales?|q?zeros?|zero_points?|absmax|g_idx|scb|quant_state)", re.I
)
_PLAIN_SCALE = re.compile(r"(layer|logit|input|residual|embed|gate)_?scale", re.I)


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
            if isinstance(table, Mapping) and table and (key != "quantization" or _says(table)):
                says = _says(table) or "unknown method"
                return f"MLX, {says}" if key == "quantization" else says
    beside = {} if directory is None else {name: read_json(directory / name) for name in _FILES}
    for name, table in beside.items():
        table = table.get("quantization", table)
        if isinstance(table, Mapping) and _says(table):
            return f"{table.get('quant_algo') or _FILES[name]}, as {name} says"
    return _by_tensors(tensors)


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
    widths = [f"{name} {table[name]}" for name in _WIDTHS if table.get(name) is not None]
    return ", ".join(widths) or None


def _by_tensors(tensors: Sequence[TensorInfo]) -> str | None:
    beside: dict[str, list[str]] = {}
    for tensor in tensors:
        module, _, last = tensor.name.rpartition(".")
        if _BESIDE.search(last) and not _PLAIN_SCALE.search(last):
            beside.setdefault(module, []).append(tensor.name)
    for tensor in tensors:
        module, _, last = tensor.name.rpartition(".")
        codes = tensor.dtype in _CODES or _SMALL_FLOATS.match(tensor.dtype)
        if not codes or len(tensor.shape) < 2 or _BESIDE.search(last):
            continue
        near = beside.get(module, []) + beside.get(tensor.name, [])
        if near:
            return f"{tensor.name} is of {tensor.dtype}, and has {near[0]} beside it"
    return None
