"""The training loop: steps, validations on held-out text, and the best values.

Accelerate supplies the devices, the precision and the processes. So little is trained, a few
thousand numbers, that processes need no wrapper around the model: each takes its part of a batch,
and they sum their gradients in one message (see `processes`).
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from isotone.engine.progress import Progress
from isotone.errors import FormatError, InputError
from isotone.evaluation.scoring import text_part
from isotone.healing.loss import cross_entropy, training_loss
from isotone.healing.order import CrossingCount, CrossingCounter
from isotone.healing.processes import own_windows, share_gradients, summed
from isotone.healing.settings import HealSettings
from isotone.healing.state import TrainingState, Validation
from isotone.healing.text import HealingText
from isotone.healing.trainable import Trainable

Save = Callable[[bytes], None]
"""Keeps the whole state of a training."""

ValidationListener = Callable[[Validation], None]
"""Is called with each validation on the held-out text."""


class DivergedError(InputError):
    """Raised where training gives something else than finite numbers."""


class Training:
    """One training of one model; `run` does it.

    Parameters
    ----------
    accelerator : Accelerator
        The processes and the precision.
    student : PreTrainedModel
        The model, with packed weights.
    teacher : PreTrainedModel, optional
        The model whose predictions are matched; None to learn the text itself.
    trainable : Trainable
        The opened parts of the student.
    text : HealingText
        The windows to train on and to judge by.
    settings : HealSettings
        How to train.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        trainable: Trainable,
        text: HealingText,
        settings: HealSettings,
    ) -> None:
        self._accelerator, self._student, self._teacher = accelerator, student, teacher
        self._text, self._settings = text, settings
        self._device = torch.device(student.device)
        self._parameters = trainable.parameters
        rates = [(group, settings.learning_rate * rate) for group, rate in trainable.groups]
        self._optimizer = _adam([{"params": group, "lr": rate} for group, rate in rates])
        self._highest = [rate for _, rate in rates]
        self._crossings = CrossingCounter(
            trainable.weights,
            lambda places: _adam([{"params": places, "lr": settings.learning_rate}]),
        )
        self.state = TrainingState()

    @property
    def n_trained(self) -> int:
        """The number of coordinates that are trained."""
        return sum(parameter.numel() for parameter in self._parameters)

    @property
    def crossings(self) -> CrossingCount:
        """The crossings of neighbouring centroids, of the steps so far."""
        return self._crossings.count()

    def run(self, save: Save, listener: ValidationListener, progress: Progress) -> None:
        """Train from where the state stands to the end, and put the best values into the model.

        Parameters
        ----------
        save : callable
            Is called with the whole state after each validation but the first.
        listener : callable
            Is called with each validation.
        progress : Progress
            Is told how many tokens are trained on.

        Raises
        ------
        DivergedError
            If a loss is not finite.
        """
        settings, state = self._settings, self.state
        tokens = settings.batch * self._text.training.shape[1]
        progress.begin("healing", settings.steps * tokens, "tokens")
        progress.advance(state.step * tokens)
        if not state.validations:
            self._validate(listener)
        while state.step < settings.steps and not state.is_stuck(settings.patience):
            started = time.monotonic()
            state.losses.append(self.step())
            state.step += 1
            state.seconds += time.monotonic() - started
            progress.advance(tokens)
            progress.note(f"step {state.step}, loss {state.losses[-1]:.4f}")
            if state.step % settings.evaluate_every == 0 or state.step == settings.steps:
                self._validate(listener)
                save(self.dump())
        self._put(state.best)

    def step(self) -> float:
        """Make one step on one batch.

        Returns
        -------
        float
            The loss of the batch over all processes, in nats for each token.

        Raises
        ------
        DivergedError
            If the loss is not finite.
        """
        batch = self._text.batch(self.state.step, self._settings.batch, self._settings.seed)
        total = torch.zeros((), device=self._device)
        for window in own_windows(self._accelerator, batch, self._device):
            loss = training_loss(*self._predictions(window)) / len(batch)
            self._accelerator.backward(loss)
            total += loss.detach()
        share_gradients(self._accelerator, self._parameters, self._crossings.gradients())
        value = float(summed(self._accelerator, total))
        if not math.isfinite(value):
            raise DivergedError(
                f"the loss is {value} at step {self.state.step + 1}; give a lower learning rate, "
                "or compute in float32"
            )
        rate = self.state.rate_factor * self._settings.rate(self.state.step)
        for group, highest in zip(self._optimizer.param_groups, self._highest, strict=True):
            group["lr"] = rate * highest
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._crossings.step(rate)
        return value

    def validation(self) -> Validation:
        """Judge the present values on the held-out text.

        Returns
        -------
        Validation
            The losses and perplexities.

        Raises
        ------
        DivergedError
            If a loss is not finite, or larger than a perplexity can express.
        """
        past, held_out = self.state.losses, self._text.held_out
        sums = torch.zeros(3, dtype=torch.float64, device=self._device)
        for window in own_windows(self._accelerator, held_out, self._device):
            sums += self._judged(window)
        loss, entropy, teachers = (summed(self._accelerator, sums) / len(held_out)).tolist()
        if not max(map(abs, (loss, entropy, teachers))) < 700.0:  # NaN, or more than exp can take.
            raise DivergedError(
                f"the held-out loss is {loss:g} after {self.state.step} steps, and that of the "
                f"text {entropy:g}; give a lower learning rate, or compute in float32"
            )
        return Validation(
            step=self.state.step,
            loss=loss,
            perplexity=math.exp(entropy),
            teacher_perplexity=None if self._teacher is None else math.exp(teachers),
            training_loss=sum(past) / len(past) if past else None,
            seconds=self.state.seconds,
        )

    def dump(self) -> bytes:
        """Return the state as bytes that hold tensors and plain values only."""
        content = {
            **self.state.dump(),
            "present": [parameter.detach() for parameter in self._parameters],
            "optimizer": self._optimizer.state_dict(),
            "crossings": self._crossings.dump(),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    def load(self, dumped: bytes, where: str) -> None:
        """Continue from a state.

        Parameters
        ----------
        dumped : bytes
            What `dump` returned. Bytes that hold other objects are refused unread.
        where : str
            Where the bytes come from, for the message.

        Raises
        ------
        FormatError
            If the bytes are no state of this training.
        """
        try:
            content = torch.load(io.BytesIO(dumped), map_location=self._device, weights_only=True)
            self._put(content.pop("present"))
            self._optimizer.load_state_dict(content.pop("optimizer"))
            self._crossings.load(content.pop("crossings"))
            self.state = TrainingState.load(content)
        except Exception as error:  # torch raises exceptions of many kinds
            raise FormatError(
                f"{where}: the state of the interrupted run is damaged, or another isotone's; "
                "remove the directory that it is in, and run again"
            ) from error

    def _validate(self, listener: ValidationListener) -> None:
        """Keep the present values if they are the best; else go back, and on at half the rate."""
        state, validation = self.state, self.validation()
        if not state.validations or validation.loss < state.best_validation.loss:
            state.best = [parameter.detach().clone() for parameter in self._parameters]
        else:
            state.rate_factor /= 2
            self._put(state.best)
            for moments in self._optimizer.state.values():
                moments["exp_avg"].zero_()  # The momentum led away from the best values.
        state.validations.append(validation)
        state.losses = []
        listener(validation)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _judged(self, window: torch.Tensor) -> torch.Tensor:
        """Return the trained loss, and the text's cross-entropy for student and teacher: [3]."""
        logits, expected, tokens = self._predictions(window)
        entropy = cross_entropy(logits, tokens)
        other = entropy if expected is None else cross_entropy(expected, tokens)
        return torch.stack([training_loss(logits, expected, tokens), entropy, other]).double()

    def _predictions(
        self, window: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Return the logits of student and teacher over the text of a window, and its tokens.

        These are [1, n, vocabulary] and [1, n] for a window [1, C]; see `text_part`.
        """
        n_prefix, expected = self._text.n_prefix, None
        with self._accelerator.autocast():
            logits = self._student(input_ids=window, use_cache=False).logits
            if self._teacher is not None:
                with torch.no_grad():
                    whole = self._teacher(input_ids=window, use_cache=False).logits
                    expected = text_part(whole, n_prefix)
        return text_part(logits, n_prefix), expected, text_part(window, n_prefix)

    def _put(self, values: list[torch.Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self._parameters, values, strict=True):
                parameter.copy_(value)


def _adam(groups: list[dict[str, Any]]) -> torch.optim.Adam:
    """Return Adam with a tiny epsilon: coordinates have no unit, their gradients may be tiny."""
    return torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.99), eps=1e-12)
