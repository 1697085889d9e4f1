"""The training loop: steps, looks at held-out text, the best values, and a state to go on from.

Accelerate supplies the devices, the precision and the processes. What is trained is so little, a
few thousand numbers, that processes need no wrapper around the model: each takes its part of a
batch, and they sum their gradients in one message.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from isotone.engine.progress import Progress
from isotone.errors import FormatError, InputError
from isotone.healing.crossings import CrossingCount, Crossings
from isotone.healing.loss import cross_entropy, divergence
from isotone.healing.settings import Settings
from isotone.healing.state import Look, State
from isotone.healing.text import HealingText
from isotone.healing.trainable import Trainable
from isotone.models.text import Tokens

Save = Callable[[bytes], None]
Listener = Callable[[Look], None]


class DivergedError(InputError):
    """The training gave something else than finite numbers."""


class Training:
    """One training of one model; `run` does it."""

    def __init__(
        self,
        accelerator: Accelerator,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        trainable: Trainable,
        text: HealingText,
        settings: Settings,
    ) -> None:
        """teacher: whose predictions are matched; None to learn the text itself."""
        self._accelerator, self._student, self._teacher = accelerator, student, teacher
        self._text, self._settings = text, settings
        self._place = torch.device(student.device)
        self._parameters = trainable.parameters
        rates = [(group, settings.learning_rate * rate) for group, rate in trainable.groups]
        self._optimizer = _adam([{"params": group, "lr": rate} for group, rate in rates])
        self._highest = [rate for _, rate in rates]
        self._crossings = Crossings(
            trainable.weights,
            lambda places: _adam([{"params": places, "lr": settings.learning_rate}]),
        )
        self.state = State()

    @property
    def n_trained(self) -> int:
        """Numbers that are trained."""
        return sum(parameter.numel() for parameter in self._parameters)

    @property
    def crossings(self) -> CrossingCount:
        """Of the steps so far."""
        return self._crossings.count()

    def run(self, save: Save, listener: Listener, progress: Progress) -> None:
        """Train from where the state stands to the end, and put the best values into the model.

        save: called with the whole state after each look. Raises DivergedError.
        """
        settings, state = self._settings, self.state
        tokens = settings.batch * self._text.training.shape[1]
        progress.begin("healing", settings.steps * tokens, "tokens")
        progress.advance(state.step * tokens)
        if not state.looks:
            self._take_look(listener)
        while state.step < settings.steps and not state.is_stuck(settings.patience):
            started = time.monotonic()
            state.losses.append(self.step())
            state.step += 1
            state.seconds += time.monotonic() - started
            progress.advance(tokens)
            progress.note(f"step {state.step}, loss {state.losses[-1]:.4f}")
            if state.step % settings.evaluate_every == 0 or state.step == settings.steps:
                self._take_look(listener)
                save(self.dump())
        self._put(state.best)

    def step(self) -> float:
        """One step on one batch; returns its loss over all processes."""
        batch = self._text.batch(self.state.step, self._settings.batch, self._settings.seed)
        total = torch.zeros((), device=self._place)
        for window in self._own(batch):
            loss = _loss(*self._predictions(window), window) / len(batch)
            self._accelerator.backward(loss)
            total += loss.detach()
        self._share_gradients()
        value = float(self._summed(total))
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

    def look(self) -> Look:
        """Judge the present values on the held-out text; raises DivergedError."""
        past, held_out = self.state.losses, self._text.held_out
        sums = torch.zeros(3, dtype=torch.float64, device=self._place)
        for window in self._own(held_out):
            sums += self._judged(window)
        loss, entropy, teachers = (self._summed(sums) / len(held_out)).tolist()
        if not max(map(abs, (loss, entropy, teachers))) < 700.0:  # nan, or more than exp can take
            raise DivergedError(
                f"the held-out loss is {loss:g} after {self.state.step} steps, and that of the "
                f"text {entropy:g}; give a lower learning rate, or compute in float32"
            )
        return Look(
            step=self.state.step,
            loss=loss,
            perplexity=math.exp(entropy),
            teacher_perplexity=None if self._teacher is None else math.exp(teachers),
            training_loss=sum(past) / len(past) if past else None,
            seconds=self.state.seconds,
        )

    def dump(self) -> bytes:
        """The state as bytes that hold tensors and plain values only."""
        content = {
            **vars(self.state),
            "looks": [asdict(look) for look in self.state.looks],
            "present": [parameter.detach() for parameter in self._parameters],
            "optimizer": self._optimizer.state_dict(),
            "crossings": self._crossings.dump(),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    def load(self, dumped: bytes, where: str) -> None:
        """Take up a state that `dump` gave; what holds other objects is refused unread.

        where: it was, for the message. Raises FormatError for what is no state of this training.
        """
        try:
            content = torch.load(io.BytesIO(dumped), map_location=self._place, weights_only=True)
            self._put(content.pop("present"))
            self._optimizer.load_state_dict(content.pop("optimizer"))
            self._crossings.load(content.pop("crossings"))
            looks = [Look(**look) for look in content.pop("looks")]
            self.state = State(looks=looks, **content)
        except Exception as error:  # torch raises most kinds
            raise FormatError(
                f"{where}: the state of the interrupted run is damaged, or another isotone's; "
                "remove the directory that it is in, and run again"
            ) from error

    def _take_look(self, listener: Listener) -> None:
        """Keep the present values if they are the best; else go back, and on at half the rate."""
        state, look = self.state, self.look()
        if not state.looks or look.loss < state.best_look.loss:
            state.best = [parameter.detach().clone() for parameter in self._parameters]
        else:
            state.rate_factor /= 2
            self._put(state.best)
            for moments in self._optimizer.state.values():
                moments["exp_avg"].zero_()  # it led away
        state.looks.append(look)
        state.losses = []
        listener(look)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _judged(self, window: torch.Tensor) -> torch.Tensor:
        """What is trained, and the text's cross-entropy for student and teacher: [3] float64."""
        logits, expected = self._predictions(window)
        entropy = cross_entropy(logits, window)
        other = entropy if expected is None else cross_entropy(expected, window)
        return torch.stack([_loss(logits, expected, window), entropy, other]).double()

    def _predictions(self, window: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits of student and teacher [1, C, vocabulary] over a window [1, C]."""
        with self._accelerator.autocast():
            logits = self._student(input_ids=window, use_cache=False).logits
            if self._teacher is None:
                return logits, None
            with torch.no_grad():
                return logits, self._teacher(input_ids=window, use_cache=False).logits

    def _own(self, windows: Tokens) -> Iterator[torch.Tensor]:
        """The windows that this process takes, one at a time: [1, C]."""
        accelerator = self._accelerator
        for window in windows[accelerator.process_index :: accelerator.num_processes]:
            yield torch.from_numpy(window).unsqueeze(0).to(self._place)

    def _share_gradients(self) -> None:
        """Sum gradients over the processes, all in one message."""
        if self._accelerator.num_processes == 1:
            return
        for parameter in self._parameters:
            if parameter.grad is None:  # this process had no window
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in self._parameters] + self._crossings.gradients()
        flat = self._summed(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, part in zip(gradients, flat.split(sizes), strict=True):
            gradient.copy_(part.view(gradient.shape))

    def _summed(self, values: torch.Tensor) -> torch.Tensor:
        if self._accelerator.num_processes == 1:
            return values
        summed: torch.Tensor = self._accelerator.reduce(values, "sum")
        return summed

    def _put(self, values: list[torch.Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self._parameters, values, strict=True):
                parameter.copy_(value)


def _loss(
    logits: torch.Tensor, expected: torch.Tensor | None, window: torch.Tensor
) -> torch.Tensor:
    """What is trained; uses `expected` up."""
    return cross_entropy(logits, window) if expected is None else divergence(logits, expected)


def _adam(groups: list[dict[str, Any]]) -> torch.optim.Adam:
    """Coordinates have no unit, and their gradients may be very small: hence the epsilon."""
    return torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.99), eps=1e-12)
