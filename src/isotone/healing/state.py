"""Where a training stands: what it has seen so far, and its best values."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Look:
    """One look at the held-out text, after so many steps.

    loss: held out, of the kind that is trained, in nats a token. perplexity: of the held-out text.
    teacher_perplexity: of the same text, None without a teacher. training_loss: mean of the steps
    since the last look, None at the first. seconds: of steps.
    """

    step: int
    loss: float
    perplexity: float
    teacher_perplexity: float | None
    training_loss: float | None
    seconds: float


@dataclass
class State:
    """Where a training stands.

    rate_factor: what the learning rate is multiplied by. best: coordinates at the look of the
    lowest loss. losses: of the steps since the last look.
    """

    step: int = 0
    seconds: float = 0.0
    rate_factor: float = 1.0
    looks: list[Look] = field(default_factory=list)
    best: list[torch.Tensor] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def best_look(self) -> Look:
        """The look of the lowest loss, the earliest of equals."""
        return min(self.looks, key=lambda look: look.loss)

    def is_stuck(self, patience: int) -> bool:
        """Whether so many looks have passed without a new best; never for 0."""
        return 0 < patience < len(self.looks) - self.looks.index(self.best_look)
