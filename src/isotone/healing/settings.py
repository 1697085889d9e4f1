"""How to train: numbers that a user may set."""

from __future__ import annotations

from dataclasses import dataclass

from isotone.errors import InputError


@dataclass(frozen=True)
class Settings:
    """How to train.

    steps: of the whole schedule. batch: windows of a step, over all processes. learning_rate: of
    Adam, in the coordinates of coordinates.py; it rises over the first twentieth of the steps and
    falls to zero in a straight line, and is halved where a look finds no new best. evaluate_every:
    steps between looks at the held-out text. patience: looks without a new best after which to
    stop; 0 for never. seed: of the windows' order, and of text that the teacher writes.
    """

    steps: int = 100
    batch: int = 1
    learning_rate: float = 0.05
    evaluate_every: int = 20
    patience: int = 3
    seed: int = 0

    def check(self) -> None:
        """Raise InputError for values that make no sense."""
        for name in ("steps", "batch", "evaluate_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.patience < 0:
            raise InputError(f"patience is {self.patience}; expected 0 (never stop early) or more")
        if not 0.0 < self.learning_rate < 1.0:
            raise InputError(
                f"learning_rate is {self.learning_rate}; expected a number between 0 and 1"
            )
        if not 0 <= self.seed < 1 << 63:
            raise InputError(f"seed is {self.seed}; expected 0 to 2**63 - 1")

    def rate(self, step: int) -> float:
        """The learning rate of a step, relative to the highest."""
        warm = max(1, self.steps // 20)
        return min((step + 1) / warm, (self.steps - step) / max(1, self.steps - warm), 1.0)
