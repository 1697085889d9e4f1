"""Collects what flows through the matrices of a language model: the statistics of calibration.

Text runs through the whole model in float32, window after window, and second moments of inputs are
added up beside it. Through some windows gradients run back, of predictions that are drawn from the
model's own distribution at every position: their squares are the outputs' Fisher information, with
nobody's labels. Where the moments of all matrices are more than a share of the machine's memory,
the same text runs through several times, for some of them each time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from isotone.checkpoint.location import is_remote
from isotone.checkpoint.model_directory import ModelDirectory
from isotone.checkpoint.plan import Clustered
from isotone.checkpoint.source import Source
from isotone.core.float_format import FloatFormat
from isotone.engine.progress import Progress
from isotone.errors import InputError
from isotone.models.calibration_text import calibration_text
from isotone.models.language_model import load_language_model
from isotone.models.observe import Observer, Seen
from isotone.pipeline.statistics import (
    INDEX_FILE,
    Observed,
    inputs_file,
    outputs_file,
    text_file,
    write_array,
    write_index,
)

_MEMORY_SHARE = 0.25  # of the machine's, for second moments
_HELD_OUT = 4  # every fourth window judges
_GRADIENTS = 3  # through every third window, gradients run back


@dataclass(frozen=True)
class _Place:
    """Where a matrix of the checkpoint is in the model: rows first_row and on of a matrix there."""

    tensor: str
    matrix: int
    address: int
    first_row: int
    n_columns: int


def collect(
    source: Source, plans: Sequence[Clustered], text: str, out: Path, progress: Progress
) -> None:
    """Write the statistics of some tensors of a model directory into `out`.

    text: `self`, or the path of a text file. What an earlier call with the same arguments finished
    there is kept. Raises InputError where the model cannot be run or the text not be used.
    Cost: the text through the model once, a third of it forth and back, and tokens * columns^2 for
    each input; memory of the model in float32, and at most a quarter of the machine's for moments.
    """
    if (out / INDEX_FILE).exists():
        return
    if not isinstance(source, ModelDirectory) or is_remote(source.directory):
        raise InputError(
            "calibrating runs the model; expected a model directory on this machine, not a single "
            "file or a URL"
        )
    out.mkdir(parents=True, exist_ok=True)
    model, tokenizer = load_language_model(source.directory)
    if not text_file(out).exists():
        write_array(text_file(out), calibration_text(model, tokenizer, text, progress))
    windows = np.load(text_file(out))
    places = list(_places(model, source, plans))
    observed: list[Observed] = []
    rounds = list(_rounds(places))
    progress.begin("observing", len(rounds) * windows.size, "tokens")
    for number, addresses in enumerate(rounds):
        record = out / f"round-{number:03}.json"
        if record.exists():
            progress.advance(windows.size)
        else:
            seen = _observe(model, windows, addresses, progress)
            found = _write(out, seen, [p for p in places if p.address in addresses], addresses)
            record.write_text(json.dumps([asdict(each) for each in found]), "utf-8")
        observed += [Observed(**each) for each in json.loads(record.read_text("utf-8"))]
    about = {
        "source": source.identity(),
        "text": text,
        "n_windows": len(windows),
        "context": windows.shape[1],
    }
    write_index(out, about, observed)


def _places(model: Any, source: Source, plans: Sequence[Clustered]) -> Iterator[_Place]:
    """Each matrix's place, left out where the model has none for it.

    By name, or where the model stacks what the checkpoint has one by one (experts), by content.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    stacked = _first_rows(parameters.values())
    for plan in plans:
        name, shape = plan.tensor.name, plan.tensor.shape
        n_columns = plan.matrix_shape[1]
        parameter = parameters.get(name)
        if parameter is not None and tuple(parameter.shape) == shape:
            matrices = parameter if plan.n_matrices > 1 else parameter.unsqueeze(0)
            for index, matrix in enumerate(matrices):
                yield _Place(name, index, matrix.data_ptr(), 0, n_columns)
        elif len(shape) == 2:
            bits = source.read(plan.tensor, 0, n_columns)
            float_format = FloatFormat(plan.tensor.dtype)
            row = float_format.widen(bits.view(float_format.bits_dtype)).tobytes()
            address, first_row = stacked.get(row) or (None, 0)
            if address is not None:
                yield _Place(name, 0, address, first_row, n_columns)


def _first_rows(parameters: Any) -> dict[bytes, tuple[int, int] | None]:
    """Stacked matrices by their first row, and by that of their lower half, which may be another's.

    None for a row that occurs twice.
    """
    found: dict[bytes, tuple[int, int] | None] = {}
    for parameter in parameters:
        for matrix in parameter.detach() if parameter.ndim == 3 else ():
            for first_row in {0, len(matrix) // 2}:
                row = matrix[first_row].float().cpu().numpy().tobytes()
                found[row] = None if row in found else (matrix.data_ptr(), first_row)
    return found


def _rounds(places: Sequence[_Place]) -> Iterator[dict[int, int]]:
    """The addresses that one run watches, numbered: as many as memory has room for."""
    room = _MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    addresses: dict[int, int] = {}
    numbered = {p.address: (i, p.n_columns) for i, p in reversed(list(enumerate(places)))}
    taken = 0
    for place in places:
        number, n_columns = numbered[place.address]
        if place.address in addresses or places[number] is not place:
            continue
        n_bytes = 2 * 4 * n_columns**2
        if addresses and taken + n_bytes > room:
            yield addresses
            addresses, taken = {}, 0
        addresses[place.address] = number
        taken += n_bytes
    if addresses:
        yield addresses


def _observe(
    model: Any, windows: NDArray[np.int64], addresses: dict[int, int], progress: Progress
) -> dict[int, Seen]:
    observer = Observer(addresses)
    draw = torch.Generator(model.device).manual_seed(0)
    with observer:
        for place, window in enumerate(windows):
            observer.held_out = place % _HELD_OUT == _HELD_OUT - 1
            tokens = torch.from_numpy(window).unsqueeze(0).to(model.device)
            if place % _GRADIENTS == 0:
                _run_back(model, tokens, draw)
            else:
                with torch.no_grad():
                    model(input_ids=tokens, use_cache=False, logits_to_keep=1)
            observer.forget_latest()
            progress.advance(len(window))
    return observer.seen


def _run_back(model: Any, tokens: torch.Tensor, draw: torch.Generator) -> None:
    """Gradients of what the model itself predicts: drawn anew at each position."""
    # No parameter takes part in them: they begin where tokens have become vectors.
    begin = model.get_input_embeddings().register_forward_hook(
        lambda _module, _given, out: out.detach().requires_grad_()
    )
    try:
        logits = model(input_ids=tokens, use_cache=False).logits[0].float()
    finally:
        begin.remove()
    with torch.no_grad():
        shares = torch.softmax(logits, -1).nan_to_num_(nan=1.0)
        drawn = torch.multinomial(shares, 1, generator=draw)[:, 0]
    torch.nn.functional.cross_entropy(logits, drawn, reduction="sum").backward()


def _write(
    out: Path, seen: dict[int, Seen], places: Sequence[_Place], addresses: dict[int, int]
) -> list[Observed]:
    """Write what was seen of some matrices, and say where it is."""
    for each in seen.values():
        if each.moments is not None:
            counts = torch.tensor(seen[each.number].n_tokens).clamp(min=1).view(2, 1, 1)
            mean = each.moments.cpu() / counts
            write_array(inputs_file(out, each.number), mean.numpy())
        if each.squared_gradients is not None:
            mean = each.squared_gradients.cpu() / each.n_gradients
            write_array(outputs_file(out, each.number), mean.numpy())
    found = []
    for place in places:
        number = addresses[place.address]
        one = seen.get(number)
        if one is not None and one.squared_gradients is not None:
            shared = place.tensor, place.matrix, one.inputs, number, place.first_row
            found.append(Observed(*shared, *one.n_tokens))
    return found
