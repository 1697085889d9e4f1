"""Checks that a text and a reference model fit a language model, before any weights are read."""

from __future__ import annotations

from isotone.errors import InputError
from isotone.models.language_model.files import ModelFiles
from isotone.models.text import Tokens


def check_context(model: ModelFiles, n_tokens: int, what: str) -> None:
    """Raise an error if the model has fewer positions than so many tokens need.

    Parameters
    ----------
    model : ModelFiles
        The model that is to read the tokens.
    n_tokens : int
        The number of tokens in one sequence.
    what : str
        What has so many tokens, as the beginning of the message.

    Raises
    ------
    InputError
        If the sequence is longer than the context that the model is made for.
    """
    limit = model.max_positions
    if limit is not None and n_tokens > limit:
        raise InputError(f"{what}: {n_tokens} tokens, and {model.name} takes at most {limit}")


def check_tokens(model: ModelFiles, tokens: Tokens) -> None:
    """Raise an error if a token has no row in the model's embedding.

    Parameters
    ----------
    model : ModelFiles
        The model whose tokenizer gave the tokens.
    tokens : int64 array of any shape
        The token ids.

    Raises
    ------
    InputError
        If a token id is not below the model's vocabulary size.
    """
    highest = int(tokens.max(initial=0))
    if highest >= model.vocabulary_size:
        raise InputError(
            f"{model.directory}: its tokenizer gives token {highest}, and the model has "
            f"{model.vocabulary_size}; the tokenizer belongs to another model"
        )


def check_same_vocabulary(model: ModelFiles, reference: ModelFiles) -> None:
    """Raise an error if a token id may mean different things to two models.

    Parameters
    ----------
    model : ModelFiles
        The model that is measured or trained.
    reference : ModelFiles
        The model that it is compared with.

    Raises
    ------
    InputError
        If the sizes of the vocabularies or the tokens in them differ.
    """
    if model.vocabulary_size != reference.vocabulary_size:
        raise InputError(
            f"{reference.name}: has a vocabulary of {reference.vocabulary_size} and {model.name} "
            f"one of {model.vocabulary_size}; the reference must share the model's vocabulary"
        )
    if model.tokenizer.get_vocab() != reference.tokenizer.get_vocab():
        raise InputError(
            f"{reference.name}: its tokenizer is not that of {model.name}; the reference must "
            "share the model's vocabulary"
        )
