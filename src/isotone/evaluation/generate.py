"""`isotone.generate`: text from a model, piece by piece as its tokens come."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from isotone.errors import InputError
from isotone.evaluation.chat import render_chat
from isotone.evaluation.scoring import scoring_mode
from isotone.models.language_model.checks import check_context
from isotone.models.language_model.files import ModelFiles, open_files
from isotone.models.language_model.load import load_model
from isotone.models.prefix import find_prefix

TextListener = Callable[[str], None]
"""Is called with each piece of text as soon as it is certain."""


@dataclass(frozen=True)
class Generation:
    """What a model wrote.

    Attributes
    ----------
    text : str
        The text that follows the prompt.
    n_prompt_tokens : int
        The number of tokens of the prompt.
    n_tokens : int
        The number of new tokens, the end-of-text token included.
    seconds : float
        The duration of the generation, without loading the model.
    """

    text: str
    n_prompt_tokens: int
    n_tokens: int
    seconds: float


class TextPieces:
    """A streamer of transformers that passes text on as soon as it cannot change any more.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        The tokenizer that turns tokens into text.
    listener : callable, optional
        Is called with each piece.

    Notes
    -----
    The pieces joined are the decoding of all tokens. A token may be half a character, and a
    tokenizer may drop a leading space, so each piece is the difference of two decodings that both
    start at the same earlier token: the method of vLLM and text-generation-inference.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, listener: TextListener | None = None
    ) -> None:
        self._tokenizer, self._listener = tokenizer, listener
        self._tokens: list[int] = []
        self._start = self._read = 0
        self._prompt_seen = False
        self.pieces: list[str] = []

    def put(self, value: torch.Tensor) -> None:
        """Take token ids; those of the first call are the prompt's, which are not repeated.

        Parameters
        ----------
        value : int64 tensor
            The ids of the prompt, or of the tokens that follow.
        """
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self._tokens.extend(value.flatten().tolist())
        before, after = self._decode(self._read), self._decode(len(self._tokens))
        if len(after) > len(before) and not after.endswith("\ufffd"):
            self._pass_on(after[len(before) :])
            self._start, self._read = self._read, len(self._tokens)

    def end(self) -> None:
        """Pass on the text that was held back: no more tokens follow."""
        rest = self._decode(len(self._tokens))[len(self._decode(self._read)) :]
        if rest:
            self._pass_on(rest)

    def _decode(self, stop: int) -> str:
        return str(
            self._tokenizer.decode(self._tokens[self._start : stop], skip_special_tokens=True)
        )

    def _pass_on(self, piece: str) -> None:
        self.pieces.append(piece)
        if self._listener is not None:
            self._listener(piece)


def generate(
    model: str | Path,
    prompt: str,
    *,
    chat: bool = False,
    template: str | None = None,
    max_tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
    dtype: str = "float32",
    device: str = "cpu",
    listener: TextListener | None = None,
) -> Generation:
    """Continue a prompt, or answer it as one chat turn through the tokenizer's template.

    Parameters
    ----------
    model : str or Path
        A dense or clustered model directory, or a hub id.
    prompt : str
        The text to continue.
    chat : bool
        Whether the prompt is a turn of a conversation, to be answered.
    template : str, optional
        The name of the chat template, for a tokenizer that has several; implies `chat`. By default
        the one that is named `default`, or the only one.
    max_tokens : int
        The most new tokens, at least 1.
    temperature : float
        0 takes the likeliest token each time. Above 0 tokens are drawn, within the top-k and top-p
        that the model's generation_config names.
    seed : int
        The seed of the draws. The global generators of torch are left as they were.
    dtype : str
        `float32`, `bfloat16`, `float16`, or `auto` for the dtype of the files.
    device : str
        Where to run, as torch names it.
    listener : callable, optional
        Is called with each piece of text as it comes.

    Returns
    -------
    Generation
        The whole text, and its figures.

    Raises
    ------
    InputError
        If a value is out of its range, if the prompt is empty or too long for the model, or if the
        model has no tokenizer, or no chat template that writes the prompt out.
    FormatError
        If a clustered directory is damaged.

    Examples
    --------
    >>> import isotone
    >>> found = isotone.generate("clustered", "Once upon a time", max_tokens=32)  # doctest: +SKIP
    >>> print(found.text)  # doctest: +SKIP
    """
    if max_tokens < 1:
        raise InputError(f"max tokens {max_tokens}: expected 1 or more")
    if not 0.0 <= temperature < float("inf"):
        raise InputError(f"temperature {temperature}: expected 0 or more")
    files = open_files(model)
    inputs = _encode(files, prompt, chat=chat or template is not None, template=template)
    n_prompt = inputs["input_ids"].shape[1]
    what = f"a prompt of {n_prompt} and {max_tokens} new ones"
    check_context(files, n_prompt + max_tokens, what)
    loaded = load_model(files, dtype=dtype, device=device)
    pieces = TextPieces(files.tokenizer, listener)
    started = time.monotonic()
    with scoring_mode(loaded), torch.random.fork_rng():
        torch.manual_seed(seed)
        output = loaded.generate(
            **{name: ids.to(loaded.device) for name, ids in inputs.items()},
            max_new_tokens=max_tokens,
            streamer=pieces,
            **_choice(loaded.generation_config, temperature),
        )
    return Generation(
        text="".join(pieces.pieces),
        n_prompt_tokens=n_prompt,
        n_tokens=output.shape[1] - n_prompt,
        seconds=time.monotonic() - started,
    )


def _encode(
    files: ModelFiles, prompt: str, *, chat: bool, template: str | None
) -> dict[str, torch.Tensor]:
    # A template writes the special tokens itself.
    text = render_chat(files, prompt, template) if chat else prompt
    tokens = files.tokenizer(text, add_special_tokens=False)["input_ids"]
    before = () if chat else find_prefix(files).tokens
    if tuple(tokens[: len(before)]) != before:  # unless the prompt says it itself
        tokens = [*before, *tokens]
    if not tokens:
        raise InputError("the prompt is empty; give at least one token")
    ids = torch.tensor([tokens], dtype=torch.int64)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _choice(settings: GenerationConfig, temperature: float) -> dict[str, Any]:
    """Return the arguments of transformers' generate that say how the next token is chosen."""
    ends = settings.eos_token_id
    if isinstance(ends, list):
        ends = ends[0]  # any of them ends the text; one of them fills it up
    choice: dict[str, Any] = {
        "pad_token_id": ends if settings.pad_token_id is None else settings.pad_token_id
    }
    if temperature > 0.0:
        return choice | {"do_sample": True, "temperature": temperature}
    # A model's own sampling settings, left in, would draw a warning each.
    return choice | {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
