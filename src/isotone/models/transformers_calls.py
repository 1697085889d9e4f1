"""The way in which isotone calls transformers: quietly, and with its errors as one line.

transformers raises most kinds of exceptions for most causes, prints tables of what it misses, and
draws progress bars of its own. Every module that has it read something a user gave does so within
`quiet_transformers` and `transformers_errors`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from isotone.errors import InputError, IsotoneError, MissingExtraError

_SPOKEN = (ValueError, TypeError, OSError, RuntimeError, AssertionError, ImportError)
"""Errors whose messages are sentences."""

_OWN_CODE = "trust_remote_code"
"""The argument that transformers asks for when a folder brings Python code of its own."""


def require_transformers(feature: str) -> None:
    """Check that torch and transformers are installed, without importing them.

    Parameters
    ----------
    feature : str
        What needs them, as the beginning of the message: "reading a GGUF model", say.

    Raises
    ------
    MissingExtraError
        If one of the two is missing.
    """
    if any(find_spec(name) is None for name in ("torch", "transformers")):
        raise MissingExtraError(feature, "models")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' log and progress bars inside a `with`.

    What it would say of missing tensors is said by isotone in one line.
    """
    from transformers.utils import logging

    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()


@contextmanager
def transformers_errors(failure: str, advice: str = "") -> Iterator[None]:
    """Turn whatever transformers raises inside a `with` into an InputError of one line.

    isotone's own errors pass through unchanged.

    Parameters
    ----------
    failure : str
        The file and what cannot be done with it; the reason follows after a colon.
    advice : str
        What to do, after a semicolon; nothing by default.

    Yields
    ------
    None
        The caller calls transformers inside.

    Raises
    ------
    InputError
        If anything but one of isotone's errors is raised inside.
    """
    try:
        yield
    except IsotoneError:
        raise
    except Exception as error:  # parsers over foreign files can raise anything
        if _OWN_CODE in str(error):
            raise InputError(
                f"{failure}: it asks for code of its own (auto_map), which isotone never runs; "
                "compress, inspect, verify and decompress need none, and the model cannot be run"
            ) from error
        advice = f"; {advice}" if advice else ""
        raise InputError(f"{failure}: {one_line(error)}{advice}") from error


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message, and the next one where it ends with a colon.

    The name of its kind stands before it, or for it, where the message is no sentence by itself: a
    KeyError's is only the key.

    Parameters
    ----------
    error : BaseException
        Any exception.

    Returns
    -------
    str
        One line that is not empty.
    """
    kind, lines = type(error).__name__, str(error).strip().splitlines()
    if not lines:
        return kind
    line = lines[0]
    if line.endswith(":") and len(lines) > 1:
        line += f" {lines[1].strip()}"
    return line if isinstance(error, _SPOKEN) else f"{kind}: {line}"
