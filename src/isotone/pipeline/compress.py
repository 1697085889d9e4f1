"""Compress a model: plan everything, decide where bits are spent, then write shard after shard.

The steps are those of `_Compression`. What each of them decides is kept in the output directory
under construction, so that a killed job goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from isotone.checkpoint.source.source import Source
from isotone.checkpoint.staging.open import open_staging
from isotone.checkpoint.staging.staging import Staging, refuse_inside, writing
from isotone.engine.local import LocalEngine
from isotone.engine.progress import Progress, Silent
from isotone.engine.tasks import Engine
from isotone.engine.threads import worker_count
from isotone.errors import InputError, IsotoneError
from isotone.models.open_source import open_source, refuse_unfit
from isotone.models.prefix import AUTO, Prefix
from isotone.pipeline.allocate.importance import Importance, SharedLambda
from isotone.pipeline.allocate.rate_probe import rate_probe
from isotone.pipeline.allocate.rate_search import lambda_for
from isotone.pipeline.calibrated.fallbacks import (
    calibration_record,
    find_fallbacks,
    note_fallbacks,
    restore_fallbacks,
)
from isotone.pipeline.calibrated.fitter import CalibratedFitter
from isotone.pipeline.calibrated.open_statistics import (
    calibration_prefix,
    identity_of,
    open_statistics,
    refuse_in_store,
)
from isotone.pipeline.calibrated.rate_search import calibrated_lambda
from isotone.pipeline.summary import CompressSummary, summarise
from isotone.pipeline.write.shards import assemble, compress_shards
from isotone.plan.job import JobPlan, plan_job
from isotone.plan.options import selection_of
from isotone.plan.settings import Selection

_LAMBDA = "price"  # the name of a note in directories under construction


def compress(
    model: str | Path,
    out: str | Path,
    *,
    k: int | None = None,
    protect: str = "auto",
    scale: str = "auto",
    method: str | None = None,
    bits: float | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    settings: Sequence[str] = (),
    calibrate: str | Path | None = None,
    bos: str = AUTO,
    workers: int | None = None,
    engine: Engine | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> CompressSummary:
    """Cluster the weight matrices of a model and write the result as a new directory.

    Every clustered matrix keeps at most `k` shared values; each weight is stored as the rank of its
    value. All other tensors are stored bit for bit. The directory loads in transformers like the
    original one, after `import isotone`.

    A job that is killed and started again with the same arguments goes on after the last finished
    shard.

    Parameters
    ----------
    model : str or Path
        A model directory, a `.safetensors` or `.gguf` file, or a hub id (`org/name[@revision]`).
        Directories and `.safetensors` files may be in an object store (`s3://...`).
    out : str or Path
        The directory to write, or its URL. It must not exist, unless isotone wrote it and
        `overwrite` is given.
    k : int, optional
        The number of centroids of each matrix, 2 to 256. By default 16 for the method `kmeans`; for
        `entropy` it is the largest number allowed, by default 256.
    protect : str
        Which weights are stored exactly because no centroid serves them: `auto`, `off`, or, for
        the method `kmeans`, a fraction of the weights from 0 to 0.05.
    scale : str
        Scales of rows and columns that a matrix is divided by before it is clustered: `auto`,
        `none`, `row` or `both`.
    method : str, optional
        `kmeans` (the least squared error for `k` centroids), `entropy` (the least squared error for
        the bytes on disk), or the name of a method that another package registered. By default
        `entropy` if `bits` is given, and `kmeans` otherwise.
    bits : float, optional
        The size to aim at, 1 to 8: all bits that the clustered weights take on disk, divided by
        their number, over the whole model. By default 4 for `entropy`. `kmeans` takes no size; a
        registered method meets it as far as its result depends on the Lagrange multiplier.
    include : sequence of str, optional
        Globs of tensor names: only matrices that match one of them are clustered.
    exclude : sequence of str, optional
        Globs of tensor names: matrices that match one of them are not clustered.
    settings : sequence of str, optional
        Settings for some tensors, `GLOB:k=64,protect=off,scale=row`. Later ones win.
    calibrate : str or Path, optional
        Weigh errors by what they do to the model's predictions, which is measured by running it:
        on text that it generates itself (`self`), on the text of a file, or, with the path of a
        directory that `isotone.calibrate` wrote, on the text of that directory.
    bos : str
        What every window of that text begins with, as `isotone.calibrate` takes it.
    workers : int, optional
        The number of threads; by default the cores that this process may use.
    engine : Engine, optional
        Where the work runs, instead of on threads of this process. All its workers must see
        `model` and `out` under the same paths.
    overwrite : bool
        Replace `out` if isotone wrote it, and drop unfinished work of another job.
    progress : Progress, optional
        Is told how far the work has come.

    Returns
    -------
    CompressSummary
        Sizes, errors and times of the result.

    Raises
    ------
    InputError
        If an argument is not allowed, the model cannot be read or is quantized already, a weight is
        NaN or infinite, or the output cannot be written.
    FormatError
        If a file of the model is damaged.

    Notes
    -----
    The bytes of the output depend on neither the number of workers nor the engine. Memory grows
    with the number of workers and not with the model. The time is linear in the number of weights;
    with `calibrate`, a matrix takes `rows * columns**2` multiplications, a few times.

    Examples
    --------
    >>> import isotone
    >>> summary = isotone.compress("SmolLM2-135M", "clustered", bits=3.6)  # doctest: +SKIP
    >>> print(summary.bits_per_weight, summary.relative_distortion)  # doctest: +SKIP
    """
    started = time.monotonic()
    selection, target = selection_of(
        k=k,
        protect=protect,
        scale=scale,
        method=method,
        bits=bits,
        include=include,
        exclude=exclude,
        settings=settings,
    )
    engine = engine or LocalEngine(n_threads=worker_count(workers))
    plan = plan_job(_open(model, out), selection)
    by = _calibration(plan.source, out, calibrate, bos)
    job = _job(plan.source, selection, target, settings, by)
    with open_staging(out, job, overwrite=overwrite) as staging:
        steps = _Compression(plan, staging, engine, progress or Silent())
        steps.calibrate(by)
        steps.spend_bits(target)
        steps.write(job)
    return summarise(out, time.monotonic() - started)


@dataclass(frozen=True)
class _Calibration:
    """The text or the statistics to calibrate by, and what the windows of the text begin with."""

    by: str | Path
    prefix: Prefix


def _calibration(
    source: Source, out: str | Path, by: str | Path | None, bos: str
) -> _Calibration | None:
    if by is not None:
        refuse_in_store(out, by)
        return _Calibration(by, calibration_prefix(source, bos))
    if bos != AUTO:
        raise InputError(f"bos is {bos!r}, and only calibrating runs a text; give calibrate too")
    return None


def _open(model: str | Path, out: str | Path) -> Source:
    source = open_source(model)
    refuse_unfit(source, model)
    refuse_inside(out, model)
    _ = source.companions  # a damaged one is refused here, and not after all shards are written
    return source


def _job(
    source: Source,
    selection: Selection,
    target: float | None,
    settings: Sequence[str],
    calibration: _Calibration | None,
) -> dict[str, Any]:
    """Return what makes a job the same as an earlier one, as JSON."""
    own_method = selection.settings.method_name
    by = None if calibration is None else identity_of(calibration.by, calibration.prefix)
    return {
        "isotone": version("isotone"),
        "arguments": {
            **({} if own_method is None else {"method": own_method}),
            "k": selection.settings.k,
            "protect": str(selection.settings.protect),
            "scale": selection.settings.scale.value,
            "bits": target,
            "include": list(selection.include),
            "exclude": list(selection.exclude),
            "set": list(settings),
            **({} if by is None else {"calibrate": by}),
        },
        "source": source.identity(),
    }


class _Compression:
    """The steps of one job, from its plan to the published directory."""

    def __init__(self, plan: JobPlan, staging: Staging, engine: Engine, progress: Progress) -> None:
        self._plan, self._staging = plan, staging
        self._engine, self._progress = engine, progress
        self._fitter: CalibratedFitter | None = None

    def calibrate(self, calibration: _Calibration | None) -> None:
        """Open the statistics to calibrate by, if any, and collect them first where need be."""
        if calibration is None:
            return
        source, clustered = self._plan.source, self._plan.clustered
        try:
            given = (calibration.by, calibration.prefix, self._staging, self._progress)
            statistics = open_statistics(source, clustered, *given)
            self._fitter = CalibratedFitter.of(source, statistics, clustered)
        except IsotoneError:  # the model cannot run, or the text is no text: nothing to resume
            self._staging.discard()
            raise
        restore_fallbacks(self._fitter, self._staging)

    def spend_bits(self, target: float | None) -> None:
        """Decide how bits are shared out, and which matrices their statistics help.

        A resumed job finds both in its notes.
        """
        if target is not None:
            importance = Importance.assumed(self._plan.source, self._plan.tied_to)
            if self._fitter is not None:
                importance = importance.without(self._fitter.costed)
            lambda_ = self._staging.note(_LAMBDA)
            if lambda_ is None:
                lambda_ = self._search(target, importance)
                self._staging.take_note(_LAMBDA, lambda_)
            self._plan = self._plan.changed(SharedLambda(lambda_, importance).apply)
        elif self._fitter is not None:
            groups = self._plan.groups
            find_fallbacks(self._fitter, groups, self._staging, self._engine, self._progress)

    def _search(self, bits: float, importance: Importance) -> float:
        """Return the Lagrange multiplier at which the model takes so many bits per weight."""
        plan, engine, progress = self._plan, self._engine, self._progress
        if self._fitter is None:
            with rate_probe(engine, plan.source, plan.groups, importance, progress) as bits_at:
                return lambda_for(bits, bits_at)
        lambda_ = calibrated_lambda(self._fitter, plan, bits, importance, engine, progress)
        note_fallbacks(self._fitter, self._staging)
        return lambda_

    def write(self, job: dict[str, Any]) -> None:
        """Write all shards and what goes beside them, and publish the directory."""
        fitter = None if self._fitter is None else self._fitter.fit
        records = compress_shards(self._plan, self._staging, self._engine, self._progress, fitter)
        if self._plan.source.identity() != job["source"]:
            self._staging.discard()
            raise InputError("the model's files changed while they were read; run it again")
        arguments = dict(job["arguments"])
        if self._plan.source.left_out:
            arguments["left_out"] = dict(self._plan.source.left_out)
        if self._fitter is not None:
            arguments["calibration"] = calibration_record(self._fitter, self._plan.clustered)
        assemble(self._plan, records, arguments, self._staging)
        with writing(self._staging.out):
            self._staging.publish()
