"""Forward passes of one model over fixed windows, those of an edited model beginning at the edit.

The unedited model runs once, and what each of its layers gives is kept. A model that is edited from
some layer on gives the same before that layer, so a pass puts what was kept in the place of those
layers, and only the rest is computed. Results are the same to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from isotone.engine.progress import Progress, Silent
from isotone.errors import InputError
from isotone.evaluation.comparison import (
    Expected,
    TokenComparison,
    compare_logits,
    expect,
    joined,
)
from isotone.evaluation.scoring import batch_size, logits_of, scoring_mode
from isotone.models.layers import blocks
from isotone.models.lazy.expression import replaced
from isotone.models.text import Tokens
from isotone.study.record import Drift

_ENTRIES, _SQUARES, _SUM, _TOKENS, _LOG_GROWTH, _COSINE = range(6)


@dataclass(frozen=True)
class _Kept:
    """Of one batch of windows: what each layer gave, and what the model made of the tokens.

    sums: what each layer adds to the drift where it gives the same again, [layers, 6].
    """

    outputs: list[Any]
    expected: Expected
    sums: Any


class Passes:
    """A model, its windows, and what the unedited model makes of them.

    Memory: windows * context tokens, each 4 bytes for every entry of the vocabulary and of each
    layer's stream.
    """

    def __init__(
        self, model: PreTrainedModel, windows: Tokens, progress: Progress | None = None
    ) -> None:
        """Runs the unedited model once. windows: [n, context]. Raises InputError: see blocks."""
        self._model, self._blocks = model, blocks(model)
        progress = progress or Silent()
        progress.begin("running the unedited model", windows.size, unit="tokens")
        self._batches = []
        size = batch_size(model, windows.shape[1])
        for start in range(0, len(windows), size):
            tokens = torch.from_numpy(np.ascontiguousarray(windows[start : start + size]))
            self._batches.append(self._keep(tokens))
            progress.advance(tokens.numel())

    @property
    def n_layers(self) -> int:
        """Of the model."""
        return len(self._blocks)

    def compare(self, first: int, *, reuse: bool = True) -> tuple[TokenComparison, Drift]:
        """Run the model as it is now; compare it with what it was, token by token, by layer.

        first: the lowest layer that was edited since; n_layers for none. reuse: False computes
        those below too, to the same result.
        """
        n_skipped = first if reuse else 0
        parts, sums = [], np.zeros((self.n_layers, 6))
        for batch in self._batches:
            sums[:n_skipped] += batch.sums[:n_skipped]
            with ExitStack() as stack:
                stack.enter_context(scoring_mode(self._model))
                stack.enter_context(_standing_in(self._blocks[:n_skipped], batch.outputs))
                for number in range(n_skipped, self.n_layers):
                    hook = _adding(batch.outputs[number], sums[number])
                    stack.callback(self._blocks[number].register_forward_hook(hook).remove)
                logits = logits_of(self._model, batch.expected.tokens)
                parts.append(compare_logits(logits, batch.expected))
        return joined(parts), _drift(sums)

    def _keep(self, tokens: torch.Tensor) -> _Kept:
        outputs: list[Any] = []
        with ExitStack() as stack:
            for block in self._blocks:
                hook = block.register_forward_hook(lambda *call: outputs.append(_copied(call[2])))
                stack.callback(hook.remove)
            stack.enter_context(scoring_mode(self._model))
            expected = expect(logits_of(self._model, tokens), tokens)
            if len(outputs) != len(self._blocks):
                raise InputError(
                    f"{type(self._model).__name__}: runs {len(outputs)} times through its "
                    f"{len(self._blocks)} layers; expected each once"
                )
            sums = np.stack([_sums(_stream(output), _stream(output)) for output in outputs])
        return _Kept(outputs, expected, sums)


@contextmanager
def _standing_in(skipped: Sequence[nn.Module], outputs: Sequence[Any]) -> Iterator[None]:
    """Layers that give what they gave before, whatever they are called with."""
    with ExitStack() as undo:
        for block, output in zip(skipped, outputs, strict=False):
            if "forward" in vars(block):  # as accelerate's hooks leave it
                undo.callback(setattr, block, "forward", vars(block)["forward"])
            else:
                undo.callback(delattr, block, "forward")
            block.forward = _giving(output)
        yield


def _giving(output: Any) -> Any:
    return lambda *_, **__: _copied(output)


def _copied(output: Any) -> Any:
    """Its own, for a later layer may work in place."""
    return replaced(output, torch.Tensor, torch.clone)


def _adding(before: Any, sums: Any) -> Any:
    """A hook that adds up what a layer gives beside what it gave before, [6]."""

    def add(_module: nn.Module, _inputs: Any, output: Any) -> None:
        sums[:] += _sums(_stream(output), _stream(before))

    return add


def _stream(output: Any) -> torch.Tensor:
    """The residual stream [B, C, width] in what a layer gives."""
    stream: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
    return stream


def _sums(stream: torch.Tensor, before: torch.Tensor) -> Any:
    """In the order of the names above: [6] float64."""
    now, then = (tensor.float().flatten(0, -2) for tensor in (stream, before))
    squares = torch.linalg.vecdot(now, now).double()
    squares_then = torch.linalg.vecdot(then, then).double()
    products = torch.linalg.vecdot(now, then).double()
    tiny = torch.finfo(torch.float64).tiny
    norms = (squares * squares_then).sqrt().clamp_min(tiny)
    growth = 0.5 * torch.log(squares.clamp_min(tiny) / squares_then.clamp_min(tiny))
    found = (squares.sum(), now.double().sum(), growth.sum(), (products / norms).sum())
    whole, total, log_growth, cosine = torch.stack(found).tolist()
    return np.array([now.numel(), whole, total, len(now), log_growth, cosine])


def _drift(sums: Any) -> Drift:
    with np.errstate(all="ignore"):  # of a collapsed model anything may be infinite
        return Drift(
            rms=_finite(np.sqrt(sums[:, _SQUARES] / sums[:, _ENTRIES])),
            mean=_finite(sums[:, _SUM] / sums[:, _ENTRIES]),
            growth=_finite(np.exp(sums[:, _LOG_GROWTH] / sums[:, _TOKENS])),
            cosine=_finite(sums[:, _COSINE] / sums[:, _TOKENS]),
        )


def _finite(values: Any) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]
