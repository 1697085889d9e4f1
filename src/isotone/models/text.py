"""Texts as windows of tokens: read, encoded once, and cut.

The whole text is encoded at once, without special tokens, and cut into windows one after the other.
Encoding the whole, and not a part that is long enough, makes the numbers those of every other tool
with this protocol: a tokenizer may join characters across any cut. Every window begins with the
prefix (see `isotone.models.prefix`), which is within its `context` tokens.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isotone.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BUILTIN = "builtin"
"""The name of the reference text that Python ships (`pydoc_data.topics`)."""

Tokens = NDArray[np.int64]
"""Token ids: of a text, `[n]`, or of windows, `[n, context]`."""

# That of UTF-32 comes first: its first two bytes are those of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(source: str | Path) -> str:
    """Read the text of a UTF-8 file, or of `builtin`.

    `builtin` is the text that Python ships, which every machine has; its content depends on
    Python's version.

    Parameters
    ----------
    source : str or Path
        The path of a text file, or `builtin`.

    Returns
    -------
    str
        The text, with line ends as newlines.

    Raises
    ------
    InputError
        If the file cannot be read, or is not UTF-8.
    """
    if str(source) == BUILTIN:
        from pydoc_data.topics import topics

        return "\n\n".join(topics[name] for name in sorted(topics))
    return read_text_file(Path(source), f"a text, or '{BUILTIN}' for the one that Python ships")


def read_text_file(path: Path, expected: str = "a text") -> str:
    """Read a UTF-8 file, or one that a byte-order mark says is UTF-16 or UTF-32.

    Parameters
    ----------
    path : Path
        The file.
    expected : str
        What a user may give here, for the message of a file that does not exist.

    Returns
    -------
    str
        The text, with line ends as newlines.

    Raises
    ------
    InputError
        If the file cannot be read, or is not UTF-8.
    """
    try:
        return decoded(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected {expected}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is not {error.encoding.upper()} text (byte {error.start} is "
            f"{error.object[error.start]:#04x}); convert it, for example with iconv -t UTF-8"
        ) from error
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}; expected {expected}"
        ) from error


def decoded(content: bytes) -> str:
    r"""Decode the bytes of a text file.

    Parameters
    ----------
    content : bytes
        UTF-8, or what the byte-order mark at its beginning says.

    Returns
    -------
    str
        The text without the mark, with line ends as newlines. Other bytes raise UnicodeDecodeError.

    Examples
    --------
    >>> decoded(b"\xef\xbb\xbfone\r\ntwo")
    'one\ntwo'
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    text = content.decode(encoding)
    if encoding == "utf-8":
        text = text.removeprefix("\ufeff")  # Python's other two decoders take the mark away.
    return text.replace("\r\n", "\n").replace("\r", "\n")


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> Tokens:
    """Encode a text as token ids, without special tokens.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        The model's tokenizer.
    text : str
        The whole text.

    Returns
    -------
    int64 array, `[n]`
        The token ids.

    Notes
    -----
    The cost is linear in the whole text.
    """
    # verbose=False: a warning that the text is longer than the model's context would mislead here.
    encoded = tokenizer(text, add_special_tokens=False, verbose=False)
    return np.asarray(encoded["input_ids"], dtype=np.int64)


def windows_of(tokens: Tokens, context: int, prefix: Sequence[int] = ()) -> Tokens:
    """Return all windows of a text, one after the other; a rest shorter than a window is dropped.

    A text that itself begins with the prefix does not get it twice.

    Parameters
    ----------
    tokens : int64 array, `[n]`
        The token ids of the text.
    context : int
        The number of tokens in a window, more than in the prefix.
    prefix : sequence of int
        The token ids that every window begins with.

    Returns
    -------
    int64 array, `[n // (context - len(prefix)), context]`
        The windows, of n tokens without a prefix of their own; without a prefix a view of `tokens`.

    Raises
    ------
    InputError
        If the prefix leaves no place for the text.

    Examples
    --------
    >>> windows_of(np.arange(7), 3)
    array([[0, 1, 2],
           [3, 4, 5]])
    >>> windows_of(np.arange(7), 3, [9])
    array([[9, 0, 1],
           [9, 2, 3],
           [9, 4, 5]])
    """
    length = context - len(prefix)
    if length < 1:
        raise InputError(
            f"context {context}: expected {len(prefix) + 1} tokens or more; a window begins with "
            f"{len(prefix)} that are not the text's"
        )
    tokens = without_prefix(tokens, prefix)
    n = len(tokens) // length
    windows = tokens[: n * length].reshape(n, length)
    if not len(prefix):
        return windows
    return np.hstack([np.broadcast_to(np.asarray(prefix, np.int64), (n, len(prefix))), windows])


def without_prefix(tokens: Tokens, prefix: Sequence[int]) -> Tokens:
    """Return the tokens of a text without a prefix that it begins with itself.

    Parameters
    ----------
    tokens : int64 array, `[n]`
        The token ids of the text.
    prefix : sequence of int
        The token ids that every window begins with.

    Returns
    -------
    int64 array, `[n]` or `[n - len(prefix)]`
        The tokens, a view.
    """
    begins = tokens[: len(prefix)].tolist() == list(prefix)
    return tokens[len(prefix) :] if begins else tokens


def cut_windows(
    tokens: Tokens, context: int, n_windows: int, name: str, prefix: Sequence[int] = ()
) -> Tokens:
    """Return the first windows of a text: the perplexity protocol's.

    Parameters
    ----------
    tokens : int64 array, `[n]`
        The token ids of the text.
    context : int
        The number of tokens in a window, 2 or more, since the first token is not scored.
    n_windows : int
        The number of windows, 1 or more.
    name : str
        The name of the text, for messages.
    prefix : sequence of int
        The token ids that every window begins with; they are among its `context` tokens.

    Returns
    -------
    int64 array, `[n_windows, context]`
        The windows; fewer where the text ends before.

    Raises
    ------
    InputError
        If the text is shorter than one window, or the sizes leave nothing to score.
    """
    if context < 2:
        raise InputError(f"context {context}: expected 2 tokens or more; the first is not scored")
    if n_windows < 1:
        raise InputError(f"windows {n_windows}: expected 1 or more")
    windows = windows_of(tokens, context, prefix)[:n_windows]
    if len(windows) == 0:
        beginning = f" and a prefix of {len(prefix)}" if len(prefix) else ""
        raise InputError(
            f"{name}: has {len(tokens)} tokens{beginning}, fewer than one window of {context}; "
            "give a longer text or a smaller context"
        )
    return windows


def spread_windows(
    tokens: Tokens, context: int, n_windows: int, prefix: Sequence[int] = ()
) -> Tokens:
    """Return windows that are spread evenly over a text.

    Parameters
    ----------
    tokens : int64 array, `[n]`
        The token ids of the text.
    context : int
        The number of tokens in a window, more than in the prefix.
    n_windows : int
        The number of windows.
    prefix : sequence of int
        The token ids that every window begins with.

    Returns
    -------
    int64 array, `[n_windows, context]`
        The windows in the order of the text; all of them where there are no more.

    Examples
    --------
    >>> spread_windows(np.arange(8), 2, 2)
    array([[0, 1],
           [4, 5]])
    """
    windows = windows_of(tokens, context, prefix)
    n = min(n_windows, len(windows))
    return windows[np.arange(n) * len(windows) // n] if n else windows
