"""Finds the output embedding that repeats the input embedding.

Most checkpoints of tied models hold the shared matrix once; some hold it twice. The second copy is
dropped only where the config says that the two are one and the bytes agree.
"""

from __future__ import annotations

from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.source import Source

_PIECE_WEIGHTS = 1 << 22
_HEADS = ("lm_head.weight", "embed_out.weight", "output.weight", "output_projection.weight")


def find_tied(source: Source) -> dict[str, str]:
    """For each output embedding that repeats an earlier matrix, that matrix's name.

    Reads both where a config ties them and both are there; nothing otherwise.
    """
    text_config = source.config.get("text_config")
    nested = isinstance(text_config, dict) and text_config.get("tie_word_embeddings")
    if not source.config.get("tie_word_embeddings") and not nested:
        return {}
    heads = [t for t in source.tensors if t.name.endswith(_HEADS)]
    tied = {}
    for head in heads:
        for other in source.tensors:
            alike = (other.dtype, other.shape) == (head.dtype, head.shape)
            if alike and other not in heads and _same_bytes(source, head, other):
                tied[head.name] = other.name
                break
    return tied


def _same_bytes(source: Source, one: TensorInfo, other: TensorInfo) -> bool:
    return all(
        (source.read(one, start, stop) == source.read(other, start, stop)).all()
        for start in range(0, one.n_weights, _PIECE_WEIGHTS)
        for stop in (min(start + _PIECE_WEIGHTS, one.n_weights),)
    )
