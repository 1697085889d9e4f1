"""How to heal: the numbers that a user may set."""

from __future__ import annotations

from dataclasses import dataclass

from isotone.errors import InputError


@dataclass(frozen=True)
class HealSettings:
    """How to train the values of a clustered model.

    Attributes
    ----------
    steps : int
        The number of steps of the whole schedule, at least 1.
    batch : int
        The number of windows in a step, over all processes, at least 1.
    learning_rate : float
        The highest learning rate of Adam, between 0 and 1, in units of a codebook's spacings (see
        `isotone.healing.coordinates`). The rate rises over the first twentieth of the steps, then
        falls to zero in a straight line, and is halved where a validation finds no new best.
    evaluate_every : int
        The number of steps between validations on the held-out text, at least 1.
    patience : int
        The number of validations without a new best after which training stops; 0 for never.
    seed : int
        The seed of the order of windows, and of text that the teacher writes, below 2**63.

    Examples
    --------
    >>> HealSettings(steps=40).rate(1)
    1.0
    """

    steps: int = 100
    batch: int = 1
    learning_rate: float = 0.05
    evaluate_every: int = 20
    patience: int = 3
    seed: int = 0

    def check(self) -> None:
        """Raise InputError for values outside their range.

        Raises
        ------
        InputError
            If a value is not as described above.
        """
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
        """Return the learning rate of a step, relative to the highest.

        Parameters
        ----------
        step : int
            The position of the step, from 0.

        Returns
        -------
        float
            A number above 0, at most 1.
        """
        warm = max(1, self.steps // 20)
        return min((step + 1) / warm, (self.steps - step) / max(1, self.steps - warm), 1.0)
