"""The result of a healing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from isotone.healing.order import CrossingCount
from isotone.healing.state import Validation
from isotone.healing.training import Training


@dataclass(frozen=True)
class Healing:
    """The result of a healing, measured on the held-out text.

    The `before` figures are of the model as it was, the `after` figures of the best values, which
    were written.

    Attributes
    ----------
    improved : bool
        Whether the held-out loss fell. If not, nothing was written.
    perplexity_before : float
        The perplexity of the held-out text before.
    perplexity_after : float
        The same after.
    teacher_perplexity : float, optional
        The teacher's perplexity of the same text; None without a teacher.
    gap_closed : float, optional
        The share of the perplexity that clustering had cost which came back; None without a
        teacher, and where the teacher is no better than the model was.
    loss_before : float
        The divergence from the teacher, or the cross-entropy without one, in nats for each token.
    loss_after : float
        The same after.
    n_trained : int
        The number of coordinates that were trained.
    steps : int
        The number of steps that were made.
    best_step : int
        The number of steps after which the values were best.
    crossings : CrossingCount
        How many neighbouring centroids crossed, or would have crossed without their order.
    looks : tuple of Validation
        All validations on the held-out text. The name is that of the key in JSON.
    bos : tuple of str
        The tokens that every window began with, as the tokenizer writes them; empty for none.
    output_bytes : int
        The size of what was written.
    training_seconds : float
        The duration of the steps.
    seconds : float
        The duration of everything.
    """

    improved: bool
    perplexity_before: float
    perplexity_after: float
    teacher_perplexity: float | None
    gap_closed: float | None
    loss_before: float
    loss_after: float
    n_trained: int
    steps: int
    best_step: int
    crossings: CrossingCount
    looks: tuple[Validation, ...]
    bos: tuple[str, ...]
    output_bytes: int
    training_seconds: float
    seconds: float


def healing_of(training: Training, final: Validation | None, bos: tuple[str, ...]) -> Healing:
    """Return the result of a training that has ended, before anything is written.

    Parameters
    ----------
    training : Training
        The training.
    final : Validation, optional
        A validation of what will be written, where that is not quite the best of the training.
    bos : tuple of str
        The tokens that every window began with.

    Returns
    -------
    Healing
        The result; `output_bytes` and `seconds` are 0.
    """
    state = training.state
    before, best = state.validations[0], state.best_validation
    after = final or best
    cost = before.perplexity - (before.teacher_perplexity or before.perplexity)
    return Healing(
        improved=after.loss < before.loss,
        perplexity_before=before.perplexity,
        perplexity_after=after.perplexity,
        teacher_perplexity=before.teacher_perplexity,
        gap_closed=(before.perplexity - after.perplexity) / cost if cost > 0 else None,
        loss_before=before.loss,
        loss_after=after.loss,
        n_trained=training.n_trained,
        steps=state.step,
        best_step=best.step,
        crossings=training.crossings,
        looks=tuple(state.validations),
        bos=bos,
        output_bytes=0,
        training_seconds=state.seconds,
        seconds=0.0,
    )


def recorded(validations: Sequence[Validation]) -> list[dict[str, Any]]:
    """Return validations as the manifest keeps them: without what differs from run to run.

    Parameters
    ----------
    validations : sequence of Validation
        The validations of a training.

    Returns
    -------
    list of dict
        Their fields, without `seconds`.
    """
    return [{k: v for k, v in asdict(each).items() if k != "seconds"} for each in validations]
