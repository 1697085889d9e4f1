"""All windows through one part of a model after the other: forth, and then gradients back.

Kept in a directory until the work is done, each written whole:

    stream-NNN.npy     [windows, ...] float32, what part NNN is given
    gradient-NNN.npy   [windows with gradients, ...] float32, of what part NNN is given
    forth-NNN.json     what part NNN was seen to use; its second moments are written
    back-NNN.json      of which matrices of part NNN gradients are written
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from isotone.calibration.locate import Place, places_of, rounds
from isotone.calibration.observe import Observer, Seen
from isotone.calibration.parts import Parts
from isotone.calibration.route import NotInPartsError
from isotone.calibration.statistics import Observed, inputs_file, outputs_file, write_array
from isotone.checkpoint.files.atomic import write_atomically
from isotone.checkpoint.source.source import Source
from isotone.engine.progress import Progress
from isotone.plan.tensors import Clustered

_HELD_OUT = 4  # every fourth window judges
_GRADIENTS = 3  # through every third window, gradients run back


class Sweep:
    """The work, and how far it has come."""

    def __init__(
        self,
        parts: Parts,
        source: Source,
        plans: Sequence[Clustered],
        windows: NDArray[np.int64],
        out: Path,
        unfinished: Path,
    ) -> None:
        """windows: [n, context]. out: for statistics. unfinished: for what is kept meanwhile."""
        self._parts, self._source, self._plans = parts, source, plans
        self._windows = torch.from_numpy(windows).unsqueeze(1).to(parts.device)
        self._out, self._directory = out, unfinished

    def run(self, progress: Progress) -> list[Observed]:
        """Do what is not done yet, and return what was seen; raises NotInPartsError."""
        self._directory.mkdir(exist_ok=True)
        numbers = range(len(self._parts))
        progress.begin("observing", len(numbers) * self._windows.numel(), "tokens")
        observed: dict[int, list[Observed]] = {}
        for number in numbers:
            seen = self._forth(number, progress)
            if any(each.outputs in observed for each in seen):
                raise NotInPartsError("its first and its last part use the same matrix")
            for each in seen:
                observed.setdefault(each.outputs, []).append(each)
        n_tokens = self._windows[::_GRADIENTS].numel()
        progress.begin("gradients", len(numbers) * n_tokens, "tokens")
        flowed = [each for number in reversed(numbers) for each in self._back(number, progress)]
        return [each for number in sorted(flowed) for each in observed.get(number, ())]

    def _forth(self, number: int, progress: Progress) -> list[Observed]:
        """A part's second moments, and what the next part is given, written."""
        record = self._file("forth", number, ".json")
        if record.exists():
            progress.advance(self._windows.numel())
        else:
            with self._held(number) as places, torch.no_grad():
                seen: dict[int, Seen] = {}
                for turn, matrices in enumerate(rounds(places)):
                    observer = Observer(matrices)
                    streams = self._observe(number, observer, progress if turn == 0 else None)
                    if turn == 0 and number < len(self._parts) - 1:
                        write_array(self._file("stream", number + 1), np.stack(streams))
                    self._write_moments(observer.seen)
                    seen |= observer.seen
            _write(record, {"n_items": self._parts.n_items, "observed": _observed(places, seen)})
        body = json.loads(record.read_text("utf-8"))
        self._parts.n_items = body["n_items"]
        return [Observed(**each) for each in body["observed"]]

    def _observe(
        self, number: int, observer: Observer, progress: Progress | None
    ) -> list[NDArray[np.float32]]:
        given, streams = self._given("stream", number), []
        with observer:
            for place, tokens in enumerate(self._windows):
                observer.held_out = place % _HELD_OUT == _HELD_OUT - 1
                out = self._parts.run(number, tokens, given(place), observer)
                observer.forget_latest()
                streams.append(out.cpu().numpy())
                if progress is not None:
                    progress.advance(tokens.numel())
        return streams

    def _back(self, number: int, progress: Progress) -> list[int]:
        """The squared gradients of a part's outputs, and the gradients of its input, written."""
        record = self._file("back", number, ".json")
        if record.exists():
            progress.advance(self._windows[::_GRADIENTS].numel())
        else:
            with self._held(number) as places:
                numbers = {place.address: place.number for place in places}
                observer = Observer(numbers, moments=False)
                gradients = self._run_back(number, observer, progress)
            if number > 0:
                write_array(self._file("gradient", number), np.stack(gradients))
            for each in observer.seen.values():
                if each.squared_gradients is not None:
                    mean = each.squared_gradients.cpu() / each.n_gradients
                    write_array(outputs_file(self._out, each.number), mean.numpy())
            flowed = [n for n, each in observer.seen.items() if each.squared_gradients is not None]
            _write(record, flowed)
        for used in (self._file("stream", number), self._file("gradient", number + 1)):
            used.unlink(missing_ok=True)
        found: list[int] = json.loads(record.read_text("utf-8"))
        return found

    def _run_back(
        self, number: int, observer: Observer, progress: Progress
    ) -> list[NDArray[np.float32]]:
        given, further = self._given("stream", number), self._given("gradient", number + 1)
        draw = torch.Generator(self._windows.device).manual_seed(0)
        gradients = []
        with observer, _from_vectors(self._parts.model):
            for place, tokens in enumerate(self._windows[::_GRADIENTS]):
                begin = given(place * _GRADIENTS)
                begin = None if begin is None else begin.requires_grad_()
                out = self._parts.run(number, tokens, begin, observer)
                gradient = further(place)
                if gradient is None:
                    _loss(out[0].float(), draw).backward()
                else:
                    out.backward(gradient)
                if begin is not None:
                    found = torch.zeros_like(begin) if begin.grad is None else begin.grad
                    gradients.append(found.cpu().numpy())
                progress.advance(tokens.numel())
        return gradients

    @contextmanager
    def _held(self, number: int) -> Iterator[list[Place]]:
        with self._parts.held(number) as held:
            yield places_of(held.parameters, held.tensors, self._source, self._plans)

    def _write_moments(self, seen: dict[int, Seen]) -> None:
        for each in seen.values():
            if each.moments is not None:
                counts = torch.tensor(each.n_tokens).clamp(min=1).view(2, 1, 1)
                mean = each.moments.cpu() / counts
                write_array(inputs_file(self._out, each.number), mean.numpy())

    def _given(self, kind: str, number: int) -> Callable[[int], torch.Tensor | None]:
        """The tensors of a file by their places; None of a file that no part has."""
        if not 0 < number < len(self._parts):
            return lambda _place: None
        array = np.load(self._file(kind, number), mmap_mode="r")
        return lambda place: torch.from_numpy(array[place].copy()).to(self._windows.device)

    def _file(self, kind: str, number: int, suffix: str = ".npy") -> Path:
        return self._directory / f"{kind}-{number:03}{suffix}"


@contextmanager
def _from_vectors(model: Any) -> Iterator[None]:
    """Gradients begin where tokens have become vectors: no parameter takes part in them."""
    hook = model.get_input_embeddings().register_forward_hook(
        lambda _module, _given, out: out.detach().requires_grad_()
    )
    try:
        yield
    finally:
        hook.remove()


def _loss(logits: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Of what the model itself predicts, drawn anew at each position; logits: [tokens, rows]."""
    with torch.no_grad():
        shares = torch.softmax(logits, -1).nan_to_num_(nan=1.0)
        drawn = torch.multinomial(shares, 1, generator=draw)[:, 0]
    return torch.nn.functional.cross_entropy(logits, drawn, reduction="sum")


def _observed(places: Sequence[Place], seen: dict[int, Seen]) -> list[dict[str, Any]]:
    """What was seen of each matrix."""
    return [
        asdict(
            Observed(
                place.tensor,
                place.matrix,
                seen[place.number].inputs,
                place.number,
                place.first_row,
                *seen[place.number].n_tokens,
            )
        )
        for place in places
        if place.number in seen
    ]


def _write(path: Path, body: Any) -> None:
    write_atomically(path, json.dumps(body).encode(), durable=False)
