"""The state of a training: its validations so far, and its best values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch


@dataclass(frozen=True)
class Validation:
    """A validation: how good the present values are on the held-out text.

    Attributes
    ----------
    step : int
        The number of steps made before.
    loss : float
        The loss that is trained, on the held-out text, in nats for each token.
    perplexity : float
        The perplexity of the held-out text.
    teacher_perplexity : float, optional
        The teacher's perplexity of the same text; None without a teacher.
    training_loss : float, optional
        The mean loss of the steps since the last validation; None at the first.
    seconds : float
        The duration of all steps so far.
    """

    step: int
    loss: float
    perplexity: float
    teacher_perplexity: float | None
    training_loss: float | None
    seconds: float


@dataclass
class TrainingState:
    """Where a training stands.

    Attributes
    ----------
    step : int
        The number of steps made.
    seconds : float
        Their duration.
    rate_factor : float
        What the scheduled learning rate is multiplied by: halved at each validation that finds no
        new best.
    validations : list of Validation
        All validations so far.
    best : list of tensor
        The coordinates at the validation of the lowest loss.
    losses : list of float
        The losses of the steps since the last validation.
    """

    step: int = 0
    seconds: float = 0.0
    rate_factor: float = 1.0
    validations: list[Validation] = field(default_factory=list)
    best: list[torch.Tensor] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def best_validation(self) -> Validation:
        """The validation of the lowest loss, the earliest of equals."""
        return min(self.validations, key=lambda validation: validation.loss)

    def is_stuck(self, patience: int) -> bool:
        """Return whether training finds no new best any more.

        Parameters
        ----------
        patience : int
            The number of validations without a new best that is enough; 0 is never enough.

        Returns
        -------
        bool
            Whether so many have passed.
        """
        since = len(self.validations) - self.validations.index(self.best_validation)
        return 0 < patience < since

    def dump(self) -> dict[str, Any]:
        """Return the state as tensors and plain values; in files the key is `looks`."""
        content = dict(vars(self))
        content["looks"] = [asdict(validation) for validation in content.pop("validations")]
        return content

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> Self:
        """Return the state that `dump` returned.

        Parameters
        ----------
        dumped : dict
            What `dump` returned.

        Returns
        -------
        TrainingState
            The state.
        """
        content = dict(dumped)
        validations = [Validation(**each) for each in content.pop("looks")]
        return cls(validations=validations, **content)
