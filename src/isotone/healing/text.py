"""The text of a healing: windows to train on in their order, and windows that are held out."""

from __future__ import annotations

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
    """

    training: Tokens
    held_out: Tokens

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


def split(tokens: Tokens, context: int, name: str, held_out: Tokens | None = None) -> HealingText:
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

    Returns
    -------
    HealingText
        The windows.

    Raises
    ------
    InputError
        If too little is left to train on.
    """
    windows = windows_of(tokens, context)
    n = len(windows)
    n_held = 0 if held_out is not None else min(MOST_HELD_OUT, max(1, n // 10))
    if n - n_held < 1:
        raise InputError(
            f"{name}: has {len(tokens)} tokens; expected {(n_held + 1) * context} or more, windows "
            f"of {context} to train on and to hold out; give a longer text or a smaller context"
        )
    held = windows[n - n_held :] if held_out is None else held_out
    return HealingText(windows[: n - n_held], held)
