"""What is trained on and what is held out: windows of tokens, and their order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isotone.errors import InputError
from isotone.models.text import Tokens, windows_of

MOST_HELD_OUT = 8
"""Windows, where they are taken from the training text."""


@dataclass(frozen=True)
class HealingText:
    """training: windows [n, context]. held_out: windows [m, context], none of them trained on."""

    training: Tokens
    held_out: Tokens

    def batch(self, step: int, size: int, seed: int) -> Tokens:
        """The windows [size, context] of a step: all in a random order, then all in another."""
        n = len(self.training)
        chosen = []
        for place in range(step * size, (step + 1) * size):
            order = np.random.default_rng([seed, place // n]).permutation(n)
            chosen.append(self.training[order[place % n]])
        return np.stack(chosen)


def split(tokens: Tokens, context: int, name: str, held_out: Tokens | None = None) -> HealingText:
    """Cut a text's tokens [n] into windows, and hold the last of them out.

    held_out: windows [m, context] of another text, if there is one; else the last tenth of this
    one, at most MOST_HELD_OUT windows, is held out. name: of the text, for messages.
    Raises InputError where too little is left to train on.
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
