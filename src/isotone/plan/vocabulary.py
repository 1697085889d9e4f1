"""The tensors that have a row for each token of the vocabulary: embeddings, and heads."""

from __future__ import annotations

from collections.abc import Mapping

from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.source import Source

_EMBEDDING_WORDS = ("emb", "wte", "word")


def has_row_per_token(source: Source, tensor: TensorInfo) -> bool:
    """Return whether a matrix has as many rows as the model's config counts tokens.

    Parameters
    ----------
    source : Source
        The model.
    tensor : TensorInfo
        One of its tensors.

    Returns
    -------
    bool
        Whether the tensor is such a matrix.
    """
    config = source.config.get("text_config") or source.config
    return len(tensor.shape) == 2 and tensor.shape[0] == config.get("vocab_size")


def heads(source: Source, tied: Mapping[str, str]) -> set[str]:
    """Return the tensors that produce logits: a row for each token, in a model that predicts them.

    Parameters
    ----------
    source : Source
        The model. Whether it predicts tokens is told by the architecture that its config names.
    tied : mapping of str to str
        For each tensor that repeats another one, the name of the other.

    Returns
    -------
    set of str
        Names of tensors. A head that is not stored is the embedding that it is tied to.
    """
    predicts = any(
        "LM" in str(name) or "ConditionalGeneration" in str(name)
        for name in source.config.get("architectures") or ()
    )
    rows = [tensor.name for tensor in source.tensors if has_row_per_token(source, tensor)]
    if not predicts or not rows:
        return set()
    found = [name for name in rows if not any(word in name for word in _EMBEDDING_WORDS)]
    return {tied.get(name, name) for name in found or rows}
