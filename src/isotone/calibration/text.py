"""The few thousand tokens that run through a model to see what flows through its matrices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isotone.engine.progress import Progress
from isotone.errors import InputError
from isotone.models.language_model import load_config, load_language_model, load_tokenizer
from isotone.models.sampling import sample_text

SELF = "self"
"""In the place of a text: what the model writes by itself."""

N_WINDOWS, CONTEXT = 48, 256
_SHORTEST = 8  # tokens of a window


def calibration_text(directory: Path, text: str, progress: Progress) -> NDArray[np.int64]:
    """Windows [n, context] of tokens: sampled from a model, or evenly from a text file.

    n is at most N_WINDOWS, context at most CONTEXT and what the model has positions for.
    Only sampling loads the model, all of it in float32: token by token, bfloat16 takes ten times
    as long on a CPU.
    Raises InputError for a file that is no text, or too short for two windows of _SHORTEST tokens.
    """
    tokenizer, config = load_tokenizer(directory), load_config(directory).get_text_config()
    context = min(CONTEXT, int(getattr(config, "max_position_embeddings", None) or CONTEXT))
    if text == SELF:
        model = load_language_model(directory)
        return sample_text(model, tokenizer, N_WINDOWS, context, progress=progress)
    encoded = tokenizer(_read(Path(text)), add_special_tokens=False, verbose=False)["input_ids"]
    tokens = np.asarray(encoded, np.int64)
    vocabulary = int(config.vocab_size)
    if tokens.max(initial=0) >= vocabulary:
        raise InputError(
            f"{text}: its tokens reach {tokens.max()} and the model has {vocabulary}; the "
            "tokenizer belongs to another model"
        )
    context = min(context, len(tokens) // 2)
    if context < _SHORTEST:
        raise InputError(
            f"{text}: has {len(tokens)} tokens; expected {2 * _SHORTEST} or more, or '{SELF}' for "
            "text that the model writes"
        )
    n_there = len(tokens) // context
    windows = tokens[: n_there * context].reshape(n_there, context)
    n = min(N_WINDOWS, n_there)
    return windows[np.arange(n) * n_there // n]


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read as UTF-8 text ({error}); expected a text file, a directory of "
            f"isotone calibrate, or '{SELF}'"
        ) from error
