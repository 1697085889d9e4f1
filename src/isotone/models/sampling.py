"""Text that a model writes by itself, for work that needs typical inputs where there is no data.

Each sequence begins with the tokenizer's prefix, if there is one (see `isotone.models.prefix`), and
a token drawn uniformly from the vocabulary, so that sequences differ in subject. It goes on at
temperature 1 from the model's whole distribution, so that sequences are what the model takes for
likely: the data-free method of LLM-QAT [1]_, whose authors found that taking the likeliest token
each time makes texts repeat themselves.

References
----------
.. [1] Liu et al., "LLM-QAT: Data-Free Quantization Aware Training for Large Language Models", 2023,
   arXiv 2305.17888.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from isotone.models.transformers_calls import one_line

_CACHE_BYTES = 2 << 30
_MOST_AT_ONCE = 64


def sample_text(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    n_sequences: int,
    length: int,
    *,
    prefix: Sequence[int] = (),
    temperature: float = 1.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """Draw sequences of tokens from a causal language model.

    The same seed gives the same text on the same machine, whatever is done to torch's own
    generator.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model. On the CPU it computes in float32 meanwhile.
    tokenizer : transformers.PreTrainedTokenizerBase
        Says which tokens are special; none of those is drawn as the first of a sequence.
    n_sequences : int
        The number of sequences.
    length : int
        The number of tokens in each, at least two more than in the prefix.
    prefix : sequence of int
        The token ids that every sequence begins with; they count to its length.
    temperature : float
        Divides the logits; above 0.
    seed : int
        The seed of everything that is drawn.
    progress : Progress, optional
        Is told of each token.

    Returns
    -------
    int64 array, `[n_sequences, length]`
        The token ids.

    Raises
    ------
    InputError
        If the model cannot continue text, or returns numbers that are not finite.

    Notes
    -----
    The cost is about one forward pass for each token, many sequences at once. Their key-value cache
    takes at most 2 GiB, or what one sequence needs.
    """
    progress = progress or Silent()
    n_at_once = min(_MOST_AT_ONCE, max(1, _CACHE_BYTES // _cache_bytes(model, length)))
    starts = _starts(tokenizer, model, n_sequences, prefix, seed)
    n_new = length - starts.shape[1]
    progress.begin("the model writes text", n_sequences * n_new, "tokens")
    drawn = []
    with _in_float32(model), torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        for first in starts.split(n_at_once):
            drawn.append(_continue(model, first.to(model.device), n_new, temperature, progress))
    return np.concatenate(drawn)


@contextmanager
def _in_float32(model: PreTrainedModel) -> Iterator[None]:
    """Upcast the parameters that are on the CPU in half precision, and downcast them afterwards.

    Token by token, bfloat16 takes ten times as long on a CPU. Values come back exactly. Buffers
    stay as they are, because some are wider than the model.
    """
    halves = [
        (parameter, parameter.dtype)
        for parameter in model.parameters()
        if parameter.device.type == "cpu" and parameter.dtype in (torch.bfloat16, torch.float16)
    ]
    try:
        for parameter, _ in halves:
            parameter.data = parameter.data.float()
        yield
    finally:
        for parameter, dtype in halves:
            parameter.data = parameter.data.to(dtype)


def _continue(
    model: Any, starts: torch.Tensor, n_new: int, temperature: float, progress: Progress
) -> NDArray[np.int64]:
    """Continue the first tokens [n, m] to sequences [n, m + n_new]."""
    # transformers fills what is not given from the model's own settings: penalties, for example.
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        tokens = model.generate(
            input_ids=starts,
            attention_mask=torch.ones_like(starts),
            max_new_tokens=n_new,
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
            f"the model cannot write text by itself: {one_line(error)}; give a text"
        ) from error
    finally:
        model.generation_config = own
    array: NDArray[np.int64] = tokens.cpu().numpy()
    return array


class _Ticks(StoppingCriteria):  # type: ignore[misc]
    """A criterion that never stops the model, and tells a Progress of each new token."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        self._progress.advance(len(input_ids))
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def _starts(
    tokenizer: PreTrainedTokenizerBase,
    model: Any,
    n_sequences: int,
    prefix: Sequence[int],
    seed: int,
) -> torch.Tensor:
    """Return how sequences begin, [n, m]: the prefix, and a token that is drawn.

    It is drawn from the tokens that are not special.
    """
    size = min(len(tokenizer), int(model.config.get_text_config().vocab_size))
    ordinary = np.setdiff1d(np.arange(size), tokenizer.all_special_ids)
    generator = np.random.default_rng(seed)
    drawn = torch.from_numpy(generator.choice(ordinary, n_sequences)).unsqueeze(-1)
    before = torch.tensor([prefix], dtype=torch.int64).expand(n_sequences, -1)
    return torch.cat([before, drawn], 1)


def _cache_bytes(model: Any, length: int) -> int:
    """Return the most bytes that keys and values of one sequence take: one pair for each head."""
    config = model.config.get_text_config()
    width = int(getattr(config, "hidden_size", 1024))
    layers = int(getattr(config, "num_hidden_layers", 32))
    return 2 * layers * width * length * int(model.dtype.itemsize)
