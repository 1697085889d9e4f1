"""The config.json of a compressed directory: the model's own, and what makes loading it safe.

transformers meets an unknown `quant_method` with a warning, finds none of the weights, and goes on
with random ones. A model that was loaded without isotone would run, and talk nonsense. But it stops
with a ValueError that quotes `transformers_weights` (the file to load, where a config names one)
when that is not the name of a safetensors file; so there stands what to do. It does in versions 4
and 5. isotone's plug-in takes the key away before transformers looks at it, and so does whatever
turns the directory back into an ordinary one. The key is repeated in nested configs, for
AutoModelForCausalLM hands the text config of a larger model on without its parent.

Tried and not taken: no `quant_method` at all raises too, and says nothing of isotone; shards under
other names raise an OSError that says that files are missing, and hide them from other tools;
`load_in_4bit` leads to bitsandbytes, which raises only where it is not installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from isotone.checkpoint.compressed.manifest import CHANGED_VERSION, FORMAT_VERSION, QUANT_METHOD
from isotone.checkpoint.files.tensor_info import TensorInfo

WEIGHTS_KEY = "transformers_weights"
QUANTIZATION_KEY = "quantization_config"
NOTICE = (
    "none, for these weights are clustered: pip install 'isotone[models]', then `import isotone` "
    "before loading"
)

_FLOATING = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def compressed_config(config: dict[str, Any], first_shard: Sequence[TensorInfo]) -> dict[str, Any]:
    """The config of a compressed directory.

    config: the dense model's. first_shard: the tensors of its first file. Where neither config nor
    caller name a dtype, transformers takes that of the first tensor it meets in there, which is the
    widest. The arrays of the compressed form would mislead it, so the dtype is noted.
    """
    quantization: dict[str, Any] = {"quant_method": QUANT_METHOD, "format_version": FORMAT_VERSION}
    found = sorted({t.dtype for t in first_shard} & _FLOATING.keys(), key=list(_FLOATING).index)
    if found:
        quantization["dtype"] = _FLOATING[found[0]]
    marked = _copy(config)
    for part in _parts(marked):
        part[WEIGHTS_KEY] = NOTICE
    return {**marked, QUANTIZATION_KEY: quantization}


def changed_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a compressed directory whose values are not those that clustering found."""
    quantization = {**config[QUANTIZATION_KEY], "format_version": CHANGED_VERSION}
    return {**_copy(config), QUANTIZATION_KEY: quantization}


def dense_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config of the dense model, given that of the compressed one; a dense one stays itself.

    A dense model's own `transformers_weights` is left out: it would name a file that is not there.
    """
    plain = _copy(config)
    for part in _parts(plain):
        part.pop(WEIGHTS_KEY, None)
    plain.pop(QUANTIZATION_KEY, None)
    return plain


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A config and the configs of models nested in it."""
    yield config
    for value in config.values():
        if isinstance(value, dict) and "model_type" in value:
            yield from _parts(value)


def _copy(config: dict[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, dict) else v for k, v in config.items()}
