"""The text of a healing: windows to train on in their order, and windows that are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isotone.errors import InputError
from isotone.models.text import Tokens, windows_of

MOST_HELD_OUT = 8
"""The most windows that are held out of the training text."""


@dataclass(frozen=True)
class HealingText:
    """Windows to train on, and windows to judge by.

    Attributes
    ----------
    training : int64 array, `[n, context]`
        The windows that are trained on.
    held_out : int64 array, `[m, context]`
        The windows of each validation; none of them is trained on.
    n_prefix : int
        The number of tokens at the beginning of each window that are not the text's.
    """

    training: Tokens
    held_out: Tokens
    n_prefix: int = 0

    def batch(self, step: int, size: int, seed: int) -> Tokens:
        """Return the windows of a step: all come in a random order, then all in another one.

        Parameters
        ----------
        step : int
            The position of the step, from 0.
        size : int
            The number of windows in a step.
        seed : int
            The seed of the orders.

        Returns
        -------
        int64 array, `[size, context]`
            The windows.
        """
        n = len(self.training)
        chosen = []
        for place in range(step * size, (step + 1) * size):
            order = np.random.default_rng([seed, place // n]).permutation(n)
            chosen.append(self.training[order[place % n]])
        return np.stack(chosen)


def split(
    tokens: Tokens,
    context: int,
    name: str,
    held_out: Tokens | None = None,
    prefix: Sequence[int] = (),
) -> HealingText:
    """Cut a text into windows, and hold the last of them out.

    Parameters
    ----------
    tokens : int64 array, `[n]`
        The tokens of the text.
    context : int
        The number of tokens in a window.
    name : str
        The name of the text, for messages.
    held_out : int64 array, `[m, context]`, optional
        Windows of another text to judge by. Without them the last tenth of this one is held out,
        at most `MOST_HELD_OUT` windows.
    prefix : sequence of int
        The token ids that every window begins with.

    Returns
    -------
    HealingText
        The windows.

    Raises
    ------
    InputError
        If too little is left to train on.
    """
    windows = windows_of(tokens, context, prefix)
    n = len(windows)
    n_held = 0 if held_out is not None else min(MOST_HELD_OUT, max(1, n // 10))
    if n - n_held < 1:
        length = context - len(prefix)
        raise InputError(
            f"{name}: has {len(tokens)} tokens; expected {(n_held + 1) * length} or more, windows "
            f"of {context} to train on and to hold out; give a longer text or a smaller context"
        )
    held = windows[n - n_held :] if held_out is None else held_out
    return HealingText(windows[: n - n_held], held, len(prefix))
