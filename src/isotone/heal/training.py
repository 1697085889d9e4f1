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
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from isotone.engine.local import Progress
from isotone.errors import InputError
from isotone.evaluate.windows import Tokens
from isotone.heal.crossings import Crossings
from isotone.heal.loss import cross_entropy, divergence
from isotone.heal.text import HealingText
from isotone.heal.trainable import Trainable


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

    def rate(self, step: int) -> float:
        """The learning rate of a step, relative to the highest."""
        warm = max(1, self.steps // 20)
        return min((step + 1) / warm, (self.steps - step) / max(1, self.steps - warm), 1.0)


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

    pace: what the learning rate is multiplied by. best: coordinates at the look of the lowest loss.
    losses: of the steps since the last look.
    """

    step: int = 0
    seconds: float = 0.0
    pace: float = 1.0
    looks: list[Look] = field(default_factory=list)
    best: list[torch.Tensor] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def best_look(self) -> Look:
        """The look of the lowest loss, the earliest of equals."""
        return min(self.looks, key=lambda look: look.loss)


Save = Callable[[bytes], None]
Listener = Callable[[Look], None]


class Training:
    """One training of one model; `run` does it."""

    def __init__(
        self,
        accelerator: Accelerator,
        student: nn.Module,
        teacher: nn.Module | None,
        trainable: Trainable,
        text: HealingText,
        settings: Settings,
    ) -> None:
        """teacher: whose predictions are matched; None to learn the text itself."""
        self._accelerator, self._student, self._teacher = accelerator, student, teacher
        self._text, self._settings = text, settings
        self._parameters = trainable.parameters
        self._optimizer = _adam(
            [
                {"params": group, "lr": settings.learning_rate * rate}
                for group, rate in trainable.groups
            ]
        )
        self._highest = [group["lr"] for group in self._optimizer.param_groups]
        self._crossings = Crossings(
            trainable.weights,
            lambda places: _adam([{"params": places, "lr": settings.learning_rate}]),
        )
        self.crossed = self._crossings.count()
        self.state = State()

    @property
    def n_trained(self) -> int:
        """Numbers that are trained."""
        return sum(parameter.numel() for parameter in self._parameters)

    def run(self, save: Save, listener: Listener, progress: Progress) -> None:
        """Train from where the state stands to the end, and put the best values into the model.

        save: called with the whole state after each look. Raises InputError where the loss is not
        a finite number.
        """
        settings, state = self._settings, self.state
        tokens = settings.batch * self._text.training.shape[1]
        progress.begin("healing", settings.steps * tokens, "tokens")
        progress.advance(state.step * tokens)
        if not state.looks:
            self._take_look(listener)
        while state.step < settings.steps and not self._is_stuck():
            started = time.monotonic()
            state.losses.append(self._step())
            state.step += 1
            state.seconds += time.monotonic() - started
            progress.advance(tokens)
            progress.note(f"step {state.step}, loss {state.losses[-1]:.4f}")
            if state.step % settings.evaluate_every == 0 or state.step == settings.steps:
                self._take_look(listener)
                save(self.dump())
        self._put(state.best)

    def dump(self) -> bytes:
        """The state as bytes that hold tensors and plain values only."""
        content = {
            **{
                name: getattr(self.state, name)
                for name in ("step", "seconds", "pace", "best", "losses")
            },
            "looks": [asdict(look) for look in self.state.looks],
            "present": [parameter.detach() for parameter in self._parameters],
            "optimizer": self._optimizer.state_dict(),
            "crossings": self._crossings.dump(),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    def load(self, dumped: bytes) -> None:
        """Take up a state that `dump` gave; what holds other objects is refused unread.

        Raises InputError for what is no state of this training.
        """
        place = self._accelerator.device
        try:
            content = torch.load(io.BytesIO(dumped), map_location=place, weights_only=True)
            self._put(content.pop("present"))
            self._optimizer.load_state_dict(content.pop("optimizer"))
            self._crossings.load(content.pop("crossings"))
            looks = [Look(**look) for look in content.pop("looks")]
            self.state = State(looks=looks, **content)
        except Exception as error:  # torch raises most kinds
            raise InputError(
                "the state of the interrupted run is damaged, or another isotone's; give "
                "--overwrite to begin anew"
            ) from error
        self.crossed = self._crossings.count()

    def _step(self) -> float:
        """One step on one batch; returns its loss over all processes."""
        batch = self._text.batch(self.state.step, self._settings.batch, self._settings.seed)
        total = torch.zeros((), device=self._accelerator.device)
        for windows in self._own(batch):
            loss = _loss(*self._predictions(windows), windows)
            share = loss * (len(windows) / len(batch))
            self._accelerator.backward(share)
            total += share.detach()
        self._share_gradients()
        value = float(self._accelerator.reduce(total, "sum"))
        if not math.isfinite(value):
            raise InputError(
                f"the loss is {value} at step {self.state.step + 1}; give a lower learning rate, "
                "or compute in float32"
            )
        rate = self.state.pace * self._settings.rate(self.state.step)
        for group, highest in zip(self._optimizer.param_groups, self._highest, strict=True):
            group["lr"] = rate * highest
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._crossings.step(rate)
        self.crossed = self._crossings.count()
        return value

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def look(self) -> Look:
        """Judge the present values on the held-out text."""
        past, held_out = self.state.losses, self._text.held_out
        sums = torch.zeros(3, dtype=torch.float64, device=self._accelerator.device)
        for windows in self._own(held_out):
            logits, expected = self._predictions(windows)
            entropy = cross_entropy(logits, windows)
            other = entropy if expected is None else cross_entropy(expected, windows)
            losses = torch.stack([_loss(logits, expected, windows), entropy, other])
            sums += len(windows) * losses.double()
        loss, own, teachers = (self._accelerator.reduce(sums, "sum") / len(held_out)).tolist()
        return Look(
            step=self.state.step,
            loss=loss,
            perplexity=_exp(own),
            teacher_perplexity=None if self._teacher is None else _exp(teachers),
            training_loss=sum(past) / len(past) if past else None,
            seconds=self.state.seconds,
        )

    def _take_look(self, listener: Listener) -> None:
        """Keep the present values if they are the best; else go back, and on with half the rate."""
        state, look = self.state, self.look()
        if not state.looks or look.loss < state.best_look.loss:
            state.best = [parameter.detach().clone() for parameter in self._parameters]
        else:
            state.pace /= 2
            self._put(state.best)
            for moments in self._optimizer.state.values():
                moments["exp_avg"].zero_()  # it led away
        state.looks.append(look)
        state.losses = []
        listener(look)

    def _predictions(self, windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits of student and teacher [n, C, vocabulary] over windows [n, C]."""
        with self._accelerator.autocast():
            logits = self._student(input_ids=windows, use_cache=False).logits
            if self._teacher is None:
                return logits, None
            with torch.no_grad():
                return logits, self._teacher(input_ids=windows, use_cache=False).logits

    def _own(self, windows: Tokens) -> Iterator[torch.Tensor]:
        """The windows that this process takes, one at a time."""
        accelerator = self._accelerator
        for window in windows[accelerator.process_index :: accelerator.num_processes]:
            yield torch.from_numpy(window).unsqueeze(0).to(accelerator.device)

    def _share_gradients(self) -> None:
        """Sum gradients over the processes, all in one message."""
        if self._accelerator.num_processes == 1:
            return
        for parameter in self._parameters:
            if parameter.grad is None:  # this process had no window
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in self._parameters] + self._crossings.gradients()
        flat = self._accelerator.reduce(torch.cat([g.reshape(-1) for g in gradients]), "sum")
        for gradient, part in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(part.view(gradient.shape))

    def _put(self, values: list[torch.Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self._parameters, values, strict=True):
                parameter.copy_(value)

    def _is_stuck(self) -> bool:
        looks, patience = self.state.looks, self._settings.patience
        return 0 < patience < len(looks) - looks.index(self.state.best_look)


def _loss(
    logits: torch.Tensor, expected: torch.Tensor | None, windows: torch.Tensor
) -> torch.Tensor:
    """What is trained; uses `expected` up."""
    return cross_entropy(logits, windows) if expected is None else divergence(logits, expected)


def _adam(groups: list[dict[str, Any]]) -> torch.optim.Adam:
    """Coordinates have no unit, and their gradients may be very small: hence the epsilon."""
    return torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.99), eps=1e-12)


def _exp(value: float) -> float:
    return math.exp(value) if value < 709.0 else math.inf
