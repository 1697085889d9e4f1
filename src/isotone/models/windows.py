"""The text to judge on, as windows of tokens: the perplexity protocol's first half.

The whole text is encoded once, without special tokens; the first windows of `context` tokens, one
after the other, are scored. Encoding the whole, and not a prefix long enough, is what makes the
numbers those of every other tool with this protocol: a tokenizer may join across any cut.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isotone.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BUILTIN = "builtin"

Tokens = NDArray[np.int64]


def read_text(source: str | Path) -> str:
    """The text of a UTF-8 file, line ends made newlines, or of `builtin`.

    `builtin` is the reference text that Python ships (`pydoc_data.topics`), which every machine
    has; its content depends on Python's version. Raises InputError.
    """
    if str(source) == BUILTIN:
        from pydoc_data.topics import topics

        return "\n\n".join(topics[name] for name in sorted(topics))
    path = Path(source)
    try:
        return path.read_text("utf-8")
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such file; expected a text, or '{BUILTIN}' for the one Python ships"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is not UTF-8 text (byte {error.start} is {error.object[error.start]:#04x}); "
            "convert it, for example with iconv -t UTF-8"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> Tokens:
    """The text's token ids [n], no special tokens added. Cost: linear in the whole text."""
    # verbose=False: a warning that the text is longer than the model's context would mislead here.
    encoded = tokenizer(text, add_special_tokens=False, verbose=False)
    return np.asarray(encoded["input_ids"], dtype=np.int64)


def cut_windows(tokens: Tokens, context: int, n_windows: int, name: str) -> Tokens:
    """The first windows [n, context], n at most `n_windows` and fewer where the text ends before.

    name: of the text, for the message. Raises InputError for a text shorter than one window, and
    for sizes that leave nothing to score.
    """
    if context < 2:
        raise InputError(f"context {context}: expected 2 tokens or more, since the first is given")
    if n_windows < 1:
        raise InputError(f"windows {n_windows}: expected 1 or more")
    n = min(n_windows, len(tokens) // context)
    if n == 0:
        raise InputError(
            f"{name}: has {len(tokens)} tokens, fewer than one window of {context}; give a longer "
            "text or a smaller context"
        )
    return tokens[: n * context].reshape(n, context)
