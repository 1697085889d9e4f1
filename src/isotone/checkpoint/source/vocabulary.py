"""The tensors that have a row for each token of the vocabulary: embeddings, and heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.source import Source

_EMBEDDING_WORDS = ("emb", "wte", "word", "shared")
_OF_TOKENS = (*_EMBEDDING_WORDS, "head")
_HEADS = ("embed_out.weight",)  # GPT-NeoX calls its output embedding so
_VOCABULARY = ("vocab_size", "n_vocab", "n_words")  # also decoder_vocab_size, of Marian
_TOKEN_EMBEDDINGS = {
    "embed_in",
    "embed_tokens",
    "shared",
    "tok_embeddings",
    "token_embd",
    "token_embedding",
    "token_embeddings",
    "tokens_embed",
    "word_embedding",
    "word_embeddings",
    "wte",
}


def has_row_per_token(source: Source, tensor: TensorInfo) -> bool:
    """Return whether a matrix has as many rows as the model's config counts tokens.

    The config of a model that consists of several may count the tokens of each. A matrix in one of
    the numbered layers that is called neither embedding nor head has as many rows by accident: the
    queries of ByT5 do.

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
    parts = tensor.name.split(".")
    by_accident = any(map(str.isdigit, parts)) and not any(w in tensor.name for w in _OF_TOKENS)
    return (
        len(tensor.shape) == 2
        and not by_accident
        and any(
            key.endswith(_VOCABULARY) and value == tensor.shape[0]
            for config in _configs(source.config)
            for key, value in config.items()
        )
    )


def is_embedding(source: Source, tensor: TensorInfo) -> bool:
    """Return whether a matrix is an embedding of tokens.

    Parameters
    ----------
    source : Source
        The model.
    tensor : TensorInfo
        One of its tensors.

    Returns
    -------
    bool
        Whether it has a row for each token and the name of an input embedding. Where the config
        counts no tokens, or fewer than the padded matrix has rows, the name alone decides.
    """
    module = tensor.name.removesuffix(".weight").rpartition(".")[2]
    return len(tensor.shape) == 2 and (
        module in _TOKEN_EMBEDDINGS
        or (looks_like_embedding(tensor.name) and has_row_per_token(source, tensor))
    )


def looks_like_embedding(name: str) -> bool:
    """Return whether the name of a matrix with a row for each token is that of an input embedding.

    Parameters
    ----------
    name : str
        The name of the tensor.

    Returns
    -------
    bool
        Whether it is; otherwise it is an output embedding, which produces logits.
    """
    return not name.endswith(_HEADS) and any(word in name for word in _EMBEDDING_WORDS)


def ties_head(source: Source) -> bool:
    """Return whether the output embedding may be tied: the config says so, or says nothing.

    Parameters
    ----------
    source : Source
        The model.

    Returns
    -------
    bool
        False only where the config says that it is not tied. Of many architectures the default
        is that it is, and their checkpoints do not say so.
    """
    configs = list(_configs(source.config))
    said = [each["tie_word_embeddings"] for each in configs if "tie_word_embeddings" in each]
    return any(said) or not said


def _configs(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the config of a model, those of its parts, and those of their parts."""
    yield config
    for part in config.values():
        if isinstance(part, dict):
            yield from _configs(part)


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
    found = [name for name in rows if not looks_like_embedding(name)]
    return {tied.get(name, name) for name in found or rows}
