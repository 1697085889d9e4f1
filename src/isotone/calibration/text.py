"""The few thousand tokens that run through a model to collect its statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from isotone.calibration.model import load_model, open_files
from isotone.calibration.statistics import SELF
from isotone.checkpoint.source.model_directory import ModelDirectory
from isotone.engine.progress import Progress
from isotone.errors import InputError
from isotone.models.language_model.checks import check_tokens
from isotone.models.prefix import Prefix
from isotone.models.sampling import sample_text
from isotone.models.text import Tokens, encode, read_text_file, spread_windows, without_prefix

N_WINDOWS, CONTEXT = 48, 256
"""The number of windows and the tokens in each of them, at most."""

_SHORTEST = 8  # tokens of a window


def calibration_text(
    source: ModelDirectory, text: str, prefix: Prefix, progress: Progress
) -> Tokens:
    """Return the windows of tokens to calibrate by.

    Parameters
    ----------
    source : ModelDirectory
        The model directory.
    text : str
        `self` for text that the model generates, or the path of a UTF-8 text file, from which
        windows are taken at even distances.
    prefix : Prefix
        The tokens that every window begins with.
    progress : Progress
        Is told how many tokens have been generated.

    Returns
    -------
    int64 array, `[n, context]`
        The windows: at most `N_WINDOWS`, of at most `CONTEXT` tokens and no more than the model has
        positions for.

    Raises
    ------
    InputError
        If the file is not text, if it is too short for two windows of 8 tokens, or if the tokenizer
        does not fit the model.

    Notes
    -----
    Only generating loads the model, all of it and in float32: token by token, bfloat16 takes ten
    times as long on a CPU.
    """
    files = open_files(source)
    context = min(CONTEXT, files.max_positions or CONTEXT)
    before = prefix.tokens
    check_tokens(files, np.asarray(before, np.int64))
    if text == SELF:
        shape, model = (N_WINDOWS, context), load_model(source)
        return sample_text(model, files.tokenizer, *shape, prefix=before, progress=progress)
    expected = f"a text file, a directory of isotone calibrate, or '{SELF}'"
    tokens = encode(files.tokenizer, read_text_file(Path(text), expected))
    tokens = without_prefix(tokens, before)
    check_tokens(files, tokens)
    context = min(context, len(tokens) // 2 + len(before))
    if context < _SHORTEST + len(before):
        raise InputError(
            f"{text}: has {len(tokens)} tokens; expected {2 * _SHORTEST} or more, or '{SELF}' for "
            "text that the model writes"
        )
    return spread_windows(tokens, context, N_WINDOWS, before)
