"""Text that a model writes by itself, for work that needs typical inputs and has nobody's data.

Each sequence begins with a token drawn evenly from the vocabulary, so that sequences differ in
subject, and goes on at temperature 1 from the model's whole distribution, so that they are what the
model takes for likely (Liu et al., "LLM-QAT", arXiv 2305.17888, who also found likeliest tokens
alone to repeat themselves).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
)

from isotone.engine.progress import Progress, Silent
from isotone.errors import InputError

_CACHE_BYTES = 2 << 30
_MOST_AT_ONCE = 64


def sample_text(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    n_sequences: int,
    length: int,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """Token ids [n_sequences, length] drawn from a causal language model.

    tokenizer: says which tokens are special, and none of those begins a sequence.
    The same seed gives the same text on the same machine, whatever is done to torch's own
    generator. Raises InputError where the model cannot continue text, or gives no finite numbers.
    Cost: about one forward pass of each token, many sequences at once; memory of a cache for
    them, at most 2 GiB or one sequence.
    """
    progress = progress or Silent()
    n_at_once = min(_MOST_AT_ONCE, max(1, _CACHE_BYTES // _cache_bytes(model, length)))
    starts = _starts(tokenizer, model, n_sequences, seed)
    progress.begin("the model writes text", n_sequences * (length - 1), "tokens")
    drawn = []
    with _widened(model), torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        for first in starts.split(n_at_once):
            drawn.append(_continue(model, first.to(model.device), length, temperature, progress))
    return np.concatenate(drawn)


@contextmanager
def _widened(model: PreTrainedModel) -> Iterator[None]:
    """The model in float32 for a while, where it is on the CPU in less.

    Token by token, bfloat16 takes ten times as long there. Values come back exactly. Buffers stay
    as they are, for some are wider than the model.
    """
    narrow = [
        (parameter, parameter.dtype)
        for parameter in model.parameters()
        if parameter.device.type == "cpu" and parameter.dtype in (torch.bfloat16, torch.float16)
    ]
    try:
        for parameter, _ in narrow:
            parameter.data = parameter.data.float()
        yield
    finally:
        for parameter, dtype in narrow:
            parameter.data = parameter.data.to(dtype)


def _continue(
    model: Any, starts: torch.Tensor, length: int, temperature: float, progress: Progress
) -> NDArray[np.int64]:
    # transformers fills what is not given from the model's own settings: penalties, for example.
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        tokens = model.generate(
            input_ids=starts,
            attention_mask=torch.ones_like(starts),
            max_new_tokens=length - 1,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            pad_token_id=0,
            disable_compile=True,
            stopping_criteria=[_Ticks(progress)],
        )
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            f"the model cannot write text by itself: {str(error).splitlines()[0]}; give a text"
        ) from error
    finally:
        model.generation_config = own
    array: NDArray[np.int64] = tokens.cpu().numpy()
    return array


class _Ticks(StoppingCriteria):  # type: ignore[misc]
    """Never stops; tells the progress of each new token."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        self._progress.advance(len(input_ids))
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def _starts(
    tokenizer: PreTrainedTokenizerBase, model: Any, n_sequences: int, seed: int
) -> torch.Tensor:
    size = min(len(tokenizer), int(model.config.get_text_config().vocab_size))
    ordinary = np.setdiff1d(np.arange(size), tokenizer.all_special_ids)
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.choice(ordinary, n_sequences)).unsqueeze(-1)


def _cache_bytes(model: Any, length: int) -> int:
    """What keys and values of one sequence take at most: as if every head had its own."""
    config = model.config.get_text_config()
    width = int(getattr(config, "hidden_size", 1024))
    layers = int(getattr(config, "num_hidden_layers", 32))
    return 2 * layers * width * length * int(model.dtype.itemsize)
