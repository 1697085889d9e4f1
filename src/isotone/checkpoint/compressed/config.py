"""The config.json of a compressed directory: the model's own, and what makes loading it safe.

transformers answers an unknown `quant_method` with a warning, finds none of the weights, and goes
on with random ones, so that a model loaded without isotone would run and write nonsense. But
transformers (versions 4 and 5) stops with a ValueError that quotes `transformers_weights`, the key
with which a config names the file to load, if its value is not the name of a safetensors file. So
the value of that key says what to do. isotone's plug-in removes the key before transformers looks
at it, and `dense_config` removes it for good. The key is repeated in nested configs, because
AutoModelForCausalLM passes the text config of a larger model on without its parent.

Alternatives that were tried and rejected: without `quant_method` transformers raises an error that
does not mention isotone; shards under other names raise an OSError that says that files are
missing, and hide the shards from other tools; `load_in_4bit` leads to bitsandbytes, which raises an
error only if it is not installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from isotone.checkpoint.compressed.manifest import FORMAT_VERSION, OVERLAY_VERSION, QUANT_METHOD
from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.weight_files import WEIGHTS_KEY

QUANTIZATION_KEY = "quantization_config"
NOTICE = (
    "none, for these weights are clustered: pip install 'isotone[models]', then `import isotone` "
    "before loading"
)

_FLOATING = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def compressed_config(config: dict[str, Any], first_shard: Sequence[TensorInfo]) -> dict[str, Any]:
    """Return the config of a compressed directory.

    Parameters
    ----------
    config : dict
        The config of the dense model.
    first_shard : sequence of TensorInfo
        The tensors of the dense model's first file.

    Returns
    -------
    dict
        The config with `quantization_config` and the notice for transformers.

    Notes
    -----
    If neither the config nor the caller names a dtype, transformers takes the dtype of the first
    tensor in the first file, which is the widest. The arrays of the compressed form would mislead
    it, so the dtype is recorded.
    """
    quantization: dict[str, Any] = {"quant_method": QUANT_METHOD, "format_version": FORMAT_VERSION}
    found = sorted({t.dtype for t in first_shard} & _FLOATING.keys(), key=list(_FLOATING).index)
    if found:
        quantization["dtype"] = _FLOATING[found[0]]
    marked = _copy(config)
    for part in _parts(marked):
        part[WEIGHTS_KEY] = NOTICE
    return {**marked, QUANTIZATION_KEY: quantization}


def overlay_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a directory whose values are not those that clustering found.

    Parameters
    ----------
    config : dict
        The config of the compressed directory that the new values belong to.

    Returns
    -------
    dict
        The same with the format version of overlays.
    """
    quantization = {**config[QUANTIZATION_KEY], "format_version": OVERLAY_VERSION}
    return {**_copy(config), QUANTIZATION_KEY: quantization}


def dense_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config of the dense model.

    Parameters
    ----------
    config : dict
        The config of a compressed directory, or of a dense model.

    Returns
    -------
    dict
        The config without what isotone added. A dense model's own `transformers_weights` is left
        out too, because it would name a file that is not there.
    """
    plain = _copy(config)
    for part in _parts(plain):
        part.pop(WEIGHTS_KEY, None)
    plain.pop(QUANTIZATION_KEY, None)
    return plain


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a config, and the configs of the models nested in it."""
    yield config
    for value in config.values():
        if isinstance(value, dict) and "model_type" in value:
            yield from _parts(value)


def _copy(config: dict[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, dict) else v for k, v in config.items()}
