"""Measures compressions of a dense model beside it, one at a time."""

from __future__ import annotations

import json
import math
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import PreTrainedModel

from isotone.calibration.statistics import INDEX_FILE
from isotone.checkpoint.files.tensor_info import DTYPE_BYTES
from isotone.checkpoint.source.model_directory import ModelDirectory
from isotone.engine.progress import Progress
from isotone.errors import InputError
from isotone.evaluation.frontier.results import FrontierPoint, FrontierProtocol
from isotone.evaluation.frontier.variants import DENSE, FrontierVariant
from isotone.evaluation.metrics import Estimate, divergence, perplexity
from isotone.evaluation.provenance import text_hash
from isotone.evaluation.scoring import compare, score
from isotone.models.language_model.files import ModelFiles, open_files
from isotone.models.language_model.load import load_model
from isotone.models.text import Tokens
from isotone.pipeline.calibrate import calibrate
from isotone.pipeline.calibrated.open_statistics import calibration_prefix, identity_of
from isotone.pipeline.compress import compress

_QUALITY = ("perplexity", "perplexity_standard_error", "kl", "top1_agreement")


class _Noted:
    """Shows the stages of one variant as notes beside the stage that counts the variants."""

    def __init__(self, progress: Progress, about: str) -> None:
        self._progress, self._about = progress, about

    def begin(self, what: str, total: int, unit: str = "bytes") -> None:  # noqa: ARG002
        self._progress.note(f"{self._about}: {what}")

    def advance(self, n: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class Bench:
    """A worker that holds a dense model in memory and measures compressions of it.

    Parameters
    ----------
    source : ModelDirectory
        The dense model.
    windows : int64 array, `[n, context]`
        The tokens to score.
    protocol : FrontierProtocol
        What all points share.
    scratch : Path
        A directory for models while they are measured.
    statistics : Path
        A directory for calibration statistics; the first calibrated variant collects them.
    device : str
        Where models are run, as torch names it.
    n_threads : int
        The number of threads that compress.
    """

    def __init__(
        self,
        source: ModelDirectory,
        windows: Tokens,
        protocol: FrontierProtocol,
        *,
        scratch: Path,
        statistics: Path,
        device: str,
        n_threads: int,
    ) -> None:
        self._source, self._windows, self._protocol = source, windows, protocol
        self._scratch, self._statistics = scratch, statistics
        self._device, self._n_threads = device, n_threads
        self._n_prefix = len(protocol.bos)
        # Either choice gives the prefix of the protocol again, whatever the user's choice was.
        self._bos = "yes" if protocol.bos else "no"
        self._dense = self._load(ModelFiles.of(source))

    def __call__(self, variant: FrontierVariant, progress: Progress) -> FrontierPoint:
        """Compress to files, load them as a user would, and measure what they hold.

        Parameters
        ----------
        variant : FrontierVariant
            The way to compress; DENSE measures the model as it is.
        progress : Progress
            Is told what is done, as notes.

        Returns
        -------
        FrontierPoint
            The measurement. Of a variant that gives no finite numbers the quality is None.

        Raises
        ------
        InputError
            If the dense model itself gives no finite numbers.
        """
        stages = _Noted(progress, f"{variant.family}, {variant.label}")
        if variant == DENSE:
            return self._measure_dense(stages)
        self._scratch.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self._scratch) as scratch:
            return self._measure(variant, Path(scratch) / "model", stages)

    def _measure_dense(self, progress: Progress) -> FrontierPoint:
        judged = perplexity(
            score(self._dense, self._windows, n_prefix=self._n_prefix, progress=progress)
        )
        return self._point(
            DENSE,
            kind="dense",
            bits_per_weight=8.0 * _bytes_per_weight(self._source),
            relative_distortion=0.0,
            output_bytes=self._source.n_bytes,
            seconds=0.0,
            kl=0.0,
            top1_agreement=1.0,
            **_perplexity(judged.perplexity),
        )

    def _measure(self, variant: FrontierVariant, out: Path, progress: Progress) -> FrontierPoint:
        arguments = variant.arguments
        if "calibrate" in arguments:
            collected = self._collect(arguments["calibrate"], self._statistics, progress)
            arguments = {**arguments, "calibrate": collected, "bos": self._bos}
        summary = compress(
            self._source.directory,
            out,
            **arguments,
            include=self._protocol.include,
            exclude=self._protocol.exclude,
            workers=self._n_threads,
            progress=progress,
        )
        progress.begin("loading", 0)
        quality = self._quality(self._load(open_files(out)), progress)
        return self._point(
            variant,
            kind="swept",
            bits_per_weight=summary.bits_per_weight,
            relative_distortion=summary.relative_distortion,
            output_bytes=summary.output_bytes,
            seconds=summary.seconds,
            **quality,
        )

    def _collect(self, text: str, statistics: Path, progress: Progress) -> Path:
        """Collect statistics of the model on a text; those of another text are kept beside them."""
        prefix = calibration_prefix(self._source, self._bos)
        where = statistics / text_hash(json.dumps(identity_of(text, prefix), sort_keys=True))[:16]
        if not (where / INDEX_FILE).exists():
            how: dict[str, Any] = {"include": self._protocol.include, "bos": self._bos}
            how |= {"exclude": self._protocol.exclude, "progress": progress}
            calibrate(self._source.directory, where, text=text, **how)
        return where

    def _load(self, files: ModelFiles) -> PreTrainedModel:
        return load_model(files, dtype=self._protocol.dtype, device=self._device)

    def _quality(self, model: PreTrainedModel, progress: Progress) -> dict[str, float | None]:
        try:
            how: dict[str, Any] = {"n_prefix": self._n_prefix, "progress": progress}
            tokens = compare(model, self._dense, self._windows, **how)
        except InputError:  # No finite numbers: the dense model gave them, so this one collapsed.
            return dict.fromkeys(_QUALITY)
        summary = divergence(tokens)
        return {
            "kl": summary.kl.value,
            "top1_agreement": summary.top1_agreement.value,
            **_perplexity(perplexity(tokens.loss).perplexity),
        }

    def _point(self, variant: FrontierVariant, **figures: Any) -> FrontierPoint:  # noqa: ANN401 (the point's fields)
        return FrontierPoint(
            family=variant.family,
            label=variant.label,
            arguments=variant.arguments,
            n_tokens=len(self._windows) * (self._windows.shape[1] - max(1, self._n_prefix)),
            protocol=self._protocol,
            device=self._device,
            torch=version("torch"),
            transformers=version("transformers"),
            **figures,
        )


def _perplexity(estimate: Estimate) -> dict[str, float | None]:
    """Return a perplexity as fields; None for NaN and infinity, which JSON does not have."""
    values = {"perplexity": estimate.value, "perplexity_standard_error": estimate.standard_error}
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def _bytes_per_weight(source: ModelDirectory) -> int:
    """Return the size of the dtype that most weights are stored in; norms are often wider."""
    weights: Counter[str] = Counter()
    for tensor in source.tensors:
        weights[tensor.dtype] += tensor.n_weights
    return DTYPE_BYTES[weights.most_common(1)[0][0]]
