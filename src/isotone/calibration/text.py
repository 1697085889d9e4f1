"""The few thousand tokens that run through a model to see what flows through its matrices."""

from __future__ import annotations

from pathlib import Path

from isotone.calibration.model import load_model, open_files
from isotone.checkpoint.source.model_directory import ModelDirectory
from isotone.engine.progress import Progress
from isotone.errors import InputError
from isotone.models.language_model.checks import check_tokens
from isotone.models.sampling import sample_text
from isotone.models.text import Tokens, encode, read_text_file, spread_windows

SELF = "self"
"""In the place of a text: what the model writes by itself."""

N_WINDOWS, CONTEXT = 48, 256
_SHORTEST = 8  # tokens of a window


def calibration_text(source: ModelDirectory, text: str, progress: Progress) -> Tokens:
    """Windows [n, context] of tokens: sampled from a model, or evenly from a text file.

    n is at most N_WINDOWS, context at most CONTEXT and what the model has positions for.
    Only sampling loads the model, all of it in float32: token by token, bfloat16 takes ten times
    as long on a CPU.
    Raises InputError for a file that is no text, or too short for two windows of _SHORTEST tokens.
    """
    files = open_files(source)
    context = min(CONTEXT, files.max_positions or CONTEXT)
    if text == SELF:
        model = load_model(source)
        return sample_text(model, files.tokenizer, N_WINDOWS, context, progress=progress)
    expected = f"a text file, a directory of isotone calibrate, or '{SELF}'"
    tokens = encode(files.tokenizer, read_text_file(Path(text), expected))
    check_tokens(files, tokens)
    context = min(context, len(tokens) // 2)
    if context < _SHORTEST:
        raise InputError(
            f"{text}: has {len(tokens)} tokens; expected {2 * _SHORTEST} or more, or '{SELF}' for "
            "text that the model writes"
        )
    return spread_windows(tokens, context, N_WINDOWS)
