"""Forward passes of one model over fixed windows; those of an edited model begin at the edit.

The unedited model runs once, and the output of each of its layers is kept. A model that is edited
from some layer on has the same outputs before that layer, so a pass puts the kept outputs in the
place of those layers, and only the rest is computed. The results are the same to the last bit.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
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
from isotone.evaluation.scoring import batch_size, logits_of, scoring_mode, text_part
from isotone.models.layers import find_layers, replaced_layers
from isotone.models.lazy.expression import replaced
from isotone.models.text import Tokens
from isotone.study.record import Drift

_ENTRIES, _SQUARES, _SUM, _TOKENS, _LOG_GROWTH, _COSINE = range(6)


@dataclass(frozen=True)
class _Batch:
    """What the unedited model made of one batch of windows.

    `tokens` are those of the whole windows. `outputs` has the output of each layer. `sums`,
    `[layers, 6]`, has what each layer adds to the drift where its output is the same again.
    """

    tokens: torch.Tensor
    outputs: list[Any]
    expected: Expected
    sums: Any


class Passes:
    """A model, its windows, and what the unedited model made of them.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model, unedited.
    windows : int64 array, `[n, context]`
        The token ids to score.
    progress : Progress, optional
        Told while the unedited model runs.
    n_prefix : int
        The number of tokens at the beginning of each window that are not the text's.

    Notes
    -----
    Memory: 4 bytes for each token and each entry of the vocabulary and of every layer's stream.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        windows: Tokens,
        progress: Progress | None = None,
        *,
        n_prefix: int = 0,
    ) -> None:
        """Run the unedited model once."""
        self._model, self._blocks, self._n_prefix = model, find_layers(model), n_prefix
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
        """The number of layers of the model."""
        return len(self._blocks)

    def compare(self, first: int, *, reuse: bool = True) -> tuple[TokenComparison, Drift]:
        """Run the model as it is now, and compare it with the unedited model.

        Parameters
        ----------
        first : int
            The lowest layer that was edited; `n_layers` if none was.
        reuse : bool
            Whether the outputs of the layers below are reused; the result is the same.

        Returns
        -------
        scores : TokenComparison
            The comparison token by token.
        drift : Drift
            The comparison layer by layer.
        """
        n_skipped = first if reuse else 0
        parts, sums = [], np.zeros((self.n_layers, 6))
        for batch in self._batches:
            sums[:n_skipped] += batch.sums[:n_skipped]
            with ExitStack() as stack:
                stack.enter_context(scoring_mode(self._model))
                kept = {n: _giving(batch.outputs[n]) for n in range(n_skipped)}
                stack.enter_context(replaced_layers(self._blocks, kept))
                for number in range(n_skipped, self.n_layers):
                    hook = _adding(batch.outputs[number], sums[number])
                    stack.callback(self._blocks[number].register_forward_hook(hook).remove)
                logits = text_part(logits_of(self._model, batch.tokens), self._n_prefix)
                parts.append(compare_logits(logits, batch.expected))
        return joined(parts), _drift(sums)

    def _keep(self, tokens: torch.Tensor) -> _Batch:
        outputs: list[Any] = []
        with ExitStack() as stack:
            for block in self._blocks:
                hook = block.register_forward_hook(lambda *call: outputs.append(_copied(call[2])))
                stack.callback(hook.remove)
            stack.enter_context(scoring_mode(self._model))
            logits = text_part(logits_of(self._model, tokens), self._n_prefix)
            expected = expect(logits, text_part(tokens, self._n_prefix))
            if len(outputs) != len(self._blocks):
                raise InputError(
                    f"{type(self._model).__name__}: runs {len(outputs)} times through its "
                    f"{len(self._blocks)} layers; expected each once"
                )
            sums = np.stack([_sums(_stream(output), _stream(output)) for output in outputs])
        return _Batch(tokens, outputs, expected, sums)


def _giving(output: Any) -> Any:
    return lambda *_, **__: _copied(output)


def _copied(output: Any) -> Any:
    """Return a copy of an output, since a later layer may work in place."""
    return replaced(output, torch.Tensor, torch.clone)


def _adding(before: Any, sums: Any) -> Any:
    """Return a hook that adds a layer's drift from its unedited output to `sums`, `[6]`."""

    def add(_module: nn.Module, _inputs: Any, output: Any) -> None:
        sums[:] += _sums(_stream(output), _stream(before))

    return add


def _stream(output: Any) -> torch.Tensor:
    """Return the residual stream, `[batch, context, width]`, in the output of a layer."""
    stream: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
    return stream


def _sums(stream: torch.Tensor, before: torch.Tensor) -> Any:
    """Return the sums over a stream that drift is computed from, `[6]` float64, in their order."""
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
