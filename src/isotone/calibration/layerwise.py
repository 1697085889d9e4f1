"""Runs all windows forward through one part of a model after the other, then gradients backward.

What a killed run needs to go on is kept in a directory until the work is done. Every file is
written atomically:

    stream-NNN.npy     [windows, ...] float32, the activations that part NNN is given
    gradient-NNN.npy   [windows with gradients, ...] float32, the gradients of those activations
    forth-NNN.json     the matrices that part NNN was seen to use; their moments are written
    back-NNN.json      the matrices of part NNN whose gradients are written
    head-*, read-*     what was observed of the head and of the embedding, see `vocabulary.py`
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

from isotone.calibration.arrays import load_array, write_array
from isotone.calibration.locate import MatrixLocation, locate_matrices, memory_rounds
from isotone.calibration.observe import Observation, Observer
from isotone.calibration.parts import PartitionedModel
from isotone.calibration.route import NotLayerwiseError
from isotone.calibration.statistics import StatisticsEntry, inputs_file, outputs_file
from isotone.calibration.vocabulary import VocabularyRecord
from isotone.checkpoint.files.atomic import write_atomically
from isotone.checkpoint.source.source import Source
from isotone.engine.progress import Progress
from isotone.plan.tensors import Clustered

_HELD_OUT = 4  # every fourth window is held out
_GRADIENTS = 3  # gradients run backward through every third window


class LayerwiseRun:
    """Collects statistics part by part, and resumes after the last finished part.

    Parameters
    ----------
    model : PartitionedModel
        The model.
    source : Source
        The checkpoint that it was loaded from.
    plans : sequence of Clustered
        The tensors to collect the statistics of.
    windows : int64 array, `[n, context]`
        The tokens.
    out : Path
        The directory of the statistics.
    unfinished : Path
        A directory for what is kept until the work is done.
    n_prefix : int
        The number of tokens at the beginning of each window that are not the text's.
    """

    def __init__(
        self,
        model: PartitionedModel,
        source: Source,
        plans: Sequence[Clustered],
        windows: NDArray[np.int64],
        out: Path,
        unfinished: Path,
        n_prefix: int = 0,
    ) -> None:
        self._model, self._source, self._plans = model, source, plans
        self._windows = torch.from_numpy(windows).unsqueeze(1).to(model.device)
        self._out, self._unfinished = out, unfinished
        # The last token of the prefix predicts the text; nothing is ever predicted before it.
        self._first = max(n_prefix - 1, 0)
        self._vocabulary = VocabularyRecord(source, plans, unfinished)

    def collect(self, progress: Progress) -> list[StatisticsEntry]:
        """Collect the statistics of all parts that are not finished yet.

        Parameters
        ----------
        progress : Progress
            Is told how many tokens have run through how many parts.

        Returns
        -------
        list of StatisticsEntry
            The matrices that have statistics.

        Raises
        ------
        NotLayerwiseError
            If the model is found not to be a chain of layers.
        """
        self._unfinished.mkdir(exist_ok=True)
        numbers = range(len(self._model))
        progress.begin("collecting input moments", len(numbers) * self._windows.numel(), "tokens")
        entries: dict[int, list[StatisticsEntry]] = {}
        for number in numbers:
            found = self._forward(number, progress)
            if any(entry.outputs in entries for entry in found):
                raise NotLayerwiseError("its first and its last part use the same matrix")
            for entry in found:
                entries.setdefault(entry.outputs, []).append(entry)
        n_tokens = self._windows[::_GRADIENTS].numel()
        progress.begin("collecting output gradients", len(numbers) * n_tokens, "tokens")
        with_gradients = [
            matrix for number in reversed(numbers) for matrix in self._backward(number, progress)
        ]
        found = [entry for matrix in sorted(with_gradients) for entry in entries.get(matrix, ())]
        return found + self._vocabulary.finish(self._out)

    def _forward(self, number: int, progress: Progress) -> list[StatisticsEntry]:
        """Write the second moments of a part, and the activations that the next part is given."""
        record = self._file("forth", number, ".json")
        if record.exists():
            progress.advance(self._windows.numel())
        else:
            with self._loaded(number) as locations:
                observations = self._observe_in_rounds(number, locations, progress)
            entries = [asdict(entry) for entry in _entries(locations, observations)]
            _write(record, {"n_items": self._model.n_items, "observed": entries})
        body = json.loads(record.read_text("utf-8"))
        self._model.n_items = body["n_items"]
        return [StatisticsEntry(**entry) for entry in body["observed"]]

    def _observe_in_rounds(
        self, number: int, locations: Sequence[MatrixLocation], progress: Progress
    ) -> dict[int, Observation]:
        """Run all windows once for each round of matrices whose moments fit in memory."""
        observations: dict[int, Observation] = {}
        for turn, matrices in enumerate(memory_rounds(locations)):
            observer = Observer(matrices, self._vocabulary.numbers)
            streams = self._run_forward(number, observer, progress if turn == 0 else None)
            if turn == 0 and streams:
                write_array(self._file("stream", number + 1), np.stack(streams))
            self._vocabulary.keep_head(observer)
            self._write_moments(observer.observations)
            observations |= observer.observations
        return observations

    def _run_forward(
        self, number: int, observer: Observer, progress: Progress | None
    ) -> list[NDArray[np.float32]]:
        given, streams = self._given("stream", number), []
        ends = number == len(self._model) - 1
        all_logits = ends and observer.expects_head
        with observer, torch.set_grad_enabled(all_logits):
            for position, tokens in enumerate(self._windows):
                observer.held_out = _is_held_out(position)
                out = self._model.run(number, tokens, given(position), observer)
                observer.release_input()
                if ends:
                    observer.take_predictions(out, self._first)
                else:
                    streams.append(out.cpu().numpy())
                if progress is not None:
                    progress.advance(tokens.numel())
        return streams

    def _backward(self, number: int, progress: Progress) -> list[int]:
        """Write the squared gradients of a part's outputs, and the gradients of its input.

        Returns the numbers of the matrices that have gradients.
        """
        record = self._file("back", number, ".json")
        if record.exists():
            progress.advance(self._windows[::_GRADIENTS].numel())
        else:
            with self._loaded(number) as locations:
                numbers = {location.address: location.number for location in locations}
                observer = Observer(numbers, self._vocabulary.numbers, moments=False)
                gradients = self._run_backward(number, observer, progress)
            self._vocabulary.keep_embedding(observer)
            if number > 0:
                write_array(self._file("gradient", number), np.stack(gradients))
            _write(record, self._write_gradients(observer.observations))
        for used in (self._file("stream", number), self._file("gradient", number + 1)):
            used.unlink(missing_ok=True)
        found: list[int] = json.loads(record.read_text("utf-8"))
        return found

    def _run_backward(
        self, number: int, observer: Observer, progress: Progress
    ) -> list[NDArray[np.float32]]:
        given, later = self._given("stream", number), self._given("gradient", number + 1)
        draw = torch.Generator(self._windows.device).manual_seed(0)
        gradients = []
        with observer, _gradients_from_embeddings(self._model.model):
            for position, tokens in enumerate(self._windows[::_GRADIENTS]):
                observer.held_out = _is_held_out(position * _GRADIENTS)
                begin = given(position * _GRADIENTS)
                begin = None if begin is None else begin.requires_grad_()
                out = self._model.run(number, tokens, begin, observer)
                gradient = later(position)
                if gradient is None:
                    _loss(out[0, self._first :].float(), draw).backward()
                else:
                    out.backward(gradient)
                if begin is not None:
                    found = torch.zeros_like(begin) if begin.grad is None else begin.grad
                    gradients.append(found.cpu().numpy())
                progress.advance(tokens.numel())
        return gradients

    @contextmanager
    def _loaded(self, number: int) -> Iterator[list[MatrixLocation]]:
        with self._model.loaded(number) as part:
            yield locate_matrices(part.parameters, part.tensors, self._source, self._plans)

    def _write_moments(self, observations: dict[int, Observation]) -> None:
        for each in observations.values():
            if each.moments is not None:
                counts = torch.tensor(each.n_tokens).clamp(min=1).view(2, 1, 1)
                mean = each.moments.cpu() / counts
                write_array(inputs_file(self._out, each.number), mean.numpy())

    def _write_gradients(self, observations: dict[int, Observation]) -> list[int]:
        """Write mean squared gradients; returns the numbers of the matrices that have some."""
        written = []
        for number, each in observations.items():
            if each.squared_gradients is not None:
                mean = each.squared_gradients.cpu() / each.n_gradients
                write_array(outputs_file(self._out, each.number), mean.numpy())
                written.append(number)
        return written

    def _given(self, kind: str, number: int) -> Callable[[int], torch.Tensor | None]:
        """Return what reads the tensor of a window; it returns None where a part has no file."""
        if not 0 < number < len(self._model):
            return lambda _position: None
        array = load_array(self._file(kind, number))
        return lambda position: torch.from_numpy(array[position].copy()).to(self._windows.device)

    def _file(self, kind: str, number: int, suffix: str = ".npy") -> Path:
        return self._unfinished / f"{kind}-{number:03}{suffix}"


@contextmanager
def _gradients_from_embeddings(model: Any) -> Iterator[None]:
    """Let gradients begin at the embedded tokens, so that no parameter takes part in them."""
    hook = model.get_input_embeddings().register_forward_hook(
        lambda _module, _given, out: out if out.requires_grad else out.detach().requires_grad_()
    )
    try:
        yield
    finally:
        hook.remove()


def _is_held_out(position: int) -> bool:
    return position % _HELD_OUT == _HELD_OUT - 1


def _loss(logits: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Return the loss for tokens drawn from the model's own predictions, `[tokens, vocabulary]`."""
    with torch.no_grad():
        shares = torch.softmax(logits, -1).nan_to_num_(nan=1.0)
        drawn = torch.multinomial(shares, 1, generator=draw)[:, 0]
    return torch.nn.functional.cross_entropy(logits, drawn, reduction="sum")


def _entries(
    locations: Sequence[MatrixLocation], observations: dict[int, Observation]
) -> list[StatisticsEntry]:
    """Return the entries of those matrices that were observed."""
    return [
        StatisticsEntry(
            location.tensor,
            location.matrix,
            observations[location.number].inputs,
            location.number,
            location.first_row,
            *observations[location.number].n_tokens,
        )
        for location in locations
        if location.number in observations
    ]


def _write(path: Path, body: Any) -> None:
    write_atomically(path, json.dumps(body).encode(), durable=False)
