"""The tokens that a tokenizer puts in front of every text, such as a beginning-of-sequence token.

A model that was trained with such a token is not itself without it: attention of most tokens rests
on it, and perplexity doubles. So every window of text, and every text that a model writes, begins
with what the tokenizer itself would put there. The tokenizer is asked, not its settings: those are
called differently from one kind of tokenizer to the next, and some are ignored. What it puts behind
a text (an end-of-text token, a separator) is left out, because a window is no whole text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isotone.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from isotone.models.language_model.files import ModelFiles

CHOICES = ("auto", "yes", "no")
"""What a user may say: the tokenizer's own rule, a token in any case, or none."""

AUTO = "auto"

_MOST_PROBES = 64  # tokens that are tried as texts, should the first be none


@dataclass(frozen=True)
class Prefix:
    """The tokens that come before a text.

    Attributes
    ----------
    tokens : tuple of int
        The token ids; empty for none.
    names : tuple of str
        The same tokens as the tokenizer writes them.
    """

    tokens: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)


def find_prefix(files: ModelFiles, bos: str = AUTO) -> Prefix:
    """Return the tokens that come before every text of a model.

    Parameters
    ----------
    files : ModelFiles
        The model.
    bos : str
        `auto` for what its tokenizer puts there; `yes` for the same, or, where that is nothing, for
        the `bos_token_id` of the tokenizer or else of the config; `no` for nothing.

    Returns
    -------
    Prefix
        The tokens.

    Raises
    ------
    InputError
        If `bos` is none of the three, if `yes` finds no token, or if what the tokenizer puts around
        a text cannot be told from the text.
    """
    if bos not in CHOICES:
        raise InputError(f"bos {bos!r}: expected {', '.join(CHOICES[:-1])} or {CHOICES[-1]}")
    if bos == "no":
        return Prefix()
    tokenizer = files.tokenizer
    tokens = tokenizer_prefix(tokenizer, files.name)
    if bos == "yes" and not tokens:
        tokens = (_bos_token(files),)
    return Prefix(tokens, tuple(_name(tokenizer, token) for token in tokens))


def tokenizer_prefix(tokenizer: PreTrainedTokenizerBase, name: str) -> tuple[int, ...]:
    """Return the token ids that a tokenizer puts before a text when nobody asks it not to.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        The tokenizer.
    name : str
        The name of its model, for the message.

    Returns
    -------
    tuple of int
        The token ids; empty for none.

    Raises
    ------
    InputError
        If it encodes the same text differently with its special tokens and without, or encodes none
        of its own tokens.
    """
    special = set(tokenizer.all_special_ids)
    for text in _probes(tokenizer):
        bare = _encoded(tokenizer, text)
        # Where one token stands for what is unknown and for the beginning, it tells nothing.
        if not bare or special.intersection(bare):
            continue
        whole = list(tokenizer(text)["input_ids"])
        for start in range(len(whole) - len(bare) + 1):
            if whole[start : start + len(bare)] == bare:
                return tuple(whole[:start])
        raise InputError(
            f"{name}: its tokenizer encodes {text!r} as {bare} without special tokens and as "
            f"{whole} with them, which does not tell what comes before a text; give --bos no"
        )
    raise InputError(f"{name}: its tokenizer encodes none of its own tokens; give another")


def check_same_prefix(model: ModelFiles, reference: ModelFiles, bos: str) -> None:
    """Raise an error if two models would each begin the same text in another way.

    Parameters
    ----------
    model : ModelFiles
        The model that is measured or trained.
    reference : ModelFiles
        The model that it is compared with.
    bos : str
        As `find_prefix` takes it.

    Raises
    ------
    InputError
        If their prefixes differ.
    """
    own, other = find_prefix(model, bos), find_prefix(reference, bos)
    if own.tokens != other.tokens:
        raise InputError(
            f"{reference.name}: its tokenizer begins a text with {shown(other.names)}, and that of "
            f"{model.name} with {shown(own.names)}; give --bos no, or make the tokenizers the same"
        )


def shown(names: Sequence[str]) -> str:
    """Return a prefix as people read it.

    Parameters
    ----------
    names : sequence of str
        The names of its tokens.

    Returns
    -------
    str
        The names with spaces between, or `no special token`.

    Examples
    --------
    >>> shown(["[gMASK]", "<sop>"])
    '[gMASK] <sop>'
    >>> shown([])
    'no special token'
    """
    return " ".join(names) or "no special token"


def _probes(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Yield short texts, one of which any tokenizer that can encode something encodes."""
    yield "x"
    for token in range(min(len(tokenizer), _MOST_PROBES)):
        yield str(tokenizer.decode([token]))


def _encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the ids of a text alone; none where the tokenizer has no token for it."""
    try:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    except Exception:  # tokenizers raises no narrower kind for a word that is not in a word list
        return []


def _bos_token(files: ModelFiles) -> int:
    for owner in (files.tokenizer, files.config.get_text_config(), files.config):
        token = getattr(owner, "bos_token_id", None)
        if isinstance(token, int):
            return token
    raise InputError(
        f"{files.name}: neither its tokenizer nor its config names a beginning-of-sequence token "
        "(bos_token_id); give --bos auto or --bos no"
    )


def _name(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    name = tokenizer.convert_ids_to_tokens(token) if token < len(tokenizer) else None
    return f"token {token}" if name is None else str(name)
