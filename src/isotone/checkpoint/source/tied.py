"""Finds an output embedding that repeats the input embedding.

Most checkpoints of tied models hold the shared matrix once; some hold it twice. The second copy is
dropped only if the config says that the two are tied and their bytes are equal.
"""

from __future__ import annotations

from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.source import Source

_PIECE_WEIGHTS = 1 << 22
_HEADS = ("lm_head.weight", "embed_out.weight", "output.weight", "output_projection.weight")


def find_tied(source: Source) -> dict[str, str]:
    """Find the output embeddings that repeat another matrix.

    Parameters
    ----------
    source : Source
        The model.

    Returns
    -------
    dict of str to str
        For each output embedding that repeats a matrix, the name of that matrix.

    Notes
    -----
    Reads both matrices if the config ties them and both are there; otherwise reads nothing.
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
