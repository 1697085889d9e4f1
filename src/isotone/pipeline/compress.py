"""Compress a checkpoint: plan everything, then make one shard after the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from isotone.checkpoint.source.source import Source
from isotone.checkpoint.source.tied import find_tied
from isotone.checkpoint.staging.staging import Staging, refuse_inside, writing
from isotone.core.scales.balancing import ScaleRule
from isotone.engine.local import LocalEngine
from isotone.engine.progress import Progress, Silent
from isotone.engine.tasks import Engine
from isotone.engine.threads import worker_count
from isotone.errors import InputError, IsotoneError
from isotone.models.open_source import open_source, refuse_quantized
from isotone.pipeline.allocate.each_matrix import Group
from isotone.pipeline.allocate.importance import Importance
from isotone.pipeline.allocate.rate_search import SharedLambda, lambda_for, rate_probe
from isotone.pipeline.calibrated.judge import Calibration
from isotone.pipeline.calibrated.rate_search import (
    calibrated_lambda,
    identity_of,
    judged,
    note_fallbacks,
    open_calibration,
    record_of,
)
from isotone.pipeline.summary import CompressSummary, summarise
from isotone.pipeline.write.shards import assemble, compress_shards
from isotone.plan.options import selection_of
from isotone.plan.tensors import (
    Clustered,
    TensorPlan,
    Tied,
    plan_shards,
    plan_tensors,
)
from isotone.plan.vocabulary import has_row_per_token

_LAMBDA = "price"


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
    workers: int | None = None,
    engine: Engine | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> CompressSummary:
    """Cluster the weight matrices of a model into a new directory.

    model: a model directory, a .safetensors or .gguf file, or a hub id; the first two may be in a
        store (`s3://...`).
    out: a directory that does not exist yet (or is isotone's own, with overwrite), or its URL.
    k: centroids of each matrix, 2 to 256: 16 for k-means, at most 256 for entropy.
    protect: auto, off, or a fraction of the weights (k-means alone).
    scale: factors of rows and columns: auto, none, row or both.
    method: kmeans or entropy; entropy where bits are given, else kmeans.
    bits: what a clustered weight takes on disk, everything included, over the whole model; for the
        method entropy, 4 by default.
    include, exclude: globs of tensor names. settings: `GLOB:k=64,protect=off,scale=row`, later
        ones win.
    calibrate: let errors weigh by what they do to the model, which runs for that: `self`, on text
        that it writes; a text file; or a directory that `isotone calibrate` wrote.
    workers: threads; the cores of this process by default. engine: where to work, instead of on
        those threads; then MODEL and OUT must be where all its workers see them. The output depends
        on neither.

    Killed and called again with the same arguments, it goes on after the last finished shard.
    Raises InputError and FormatError. Memory is set by workers, not by the model.
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
    source = open_source(model)
    refuse_quantized(source, model)
    refuse_inside(out, model)
    progress = progress or Silent()
    tied_to = find_tied(source)
    plans = [_without_columns(p, source) for p in plan_tensors(source, selection, tied_to)]
    job: dict[str, Any] = {
        "isotone": version("isotone"),
        "arguments": {
            "k": selection.settings.k,
            "protect": str(selection.settings.protect),
            "scale": selection.settings.scale.value,
            "bits": target,
            "include": list(include),
            "exclude": list(exclude),
            "set": list(settings),
            **({} if calibrate is None else {"calibrate": identity_of(calibrate)}),
        },
        "source": source.identity(),
    }
    with Staging.open(out, job, overwrite=overwrite) as staging:
        clustered = [plan for plan in plans if isinstance(plan, Clustered)]
        known = None
        if calibrate is not None:
            try:
                known = open_calibration(source, clustered, calibrate, staging, progress)
            except IsotoneError:  # a model that cannot run, or a text that is none
                staging.discard()
                raise
        if target is not None:
            importance = Importance.assumed(source, tied_to)
            plans = _with_lambda(
                source, plans, target, importance, staging, engine, progress, known
            )
        elif known is not None:
            judged(known, _groups(plans), staging, engine, progress)
        shards = plan_shards(plans)
        fitter = None if known is None else known.fit
        records = compress_shards(source, shards, staging, engine, progress, fitter)
        if source.identity() != job["source"]:
            staging.discard()
            raise InputError("the model's files changed while they were read; run it again")
        if known is not None:
            job["arguments"]["calibration"] = record_of(known, clustered)
        tied = [plan for plan in plans if isinstance(plan, Tied)]
        assemble(source, shards, records, tied, job, staging)
        with writing(staging.out):
            staging.publish()
    return summarise(out, time.monotonic() - started)


def _without_columns(plan: TensorPlan, source: Source) -> TensorPlan:
    """Row factors alone for a matrix with a row for each token, where nothing else was asked for.

    The columns of an embedding are the channels that all layers share, and errors in the large ones
    are not made good by small ones elsewhere: on SmolLM2 column factors there take the divergence
    of the whole model from 0.15 to 0.22 at 4 bits, and from 0.56 to 0.82 at K = 16.
    """
    if not isinstance(plan, Clustered) or plan.settings.scale is not ScaleRule.AUTO:
        return plan
    if not has_row_per_token(source, plan.tensor):
        return plan
    return replace(plan, settings=replace(plan.settings, scale=ScaleRule.ROW))


def _with_lambda(
    source: Source,
    plans: list[TensorPlan],
    bits: float,
    importance: Importance,
    staging: Staging,
    engine: Engine,
    progress: Progress,
    calibration: Calibration | None,
) -> list[TensorPlan]:
    """The plans at the price that leads to so many bits; a resumed run finds the price again."""
    lambda_ = staging.note(_LAMBDA)
    if lambda_ is None:
        groups = _groups(plans)
        if calibration is None:
            with rate_probe(engine, source, groups, importance, progress) as bits_at:
                lambda_ = lambda_for(bits, bits_at)
        else:
            lambda_ = calibrated_lambda(
                calibration, source, groups, bits, importance, engine, progress
            )
            note_fallbacks(calibration, staging)
        staging.take_note(_LAMBDA, lambda_)
    lambdas = SharedLambda(lambda_, importance)
    return [lambdas.apply(plan) if isinstance(plan, Clustered) else plan for plan in plans]


def _groups(plans: list[TensorPlan]) -> list[Group]:
    """The matrices that are looked at as one task: those of a shard."""
    return [shard.clustered for shard in plan_shards(plans) if shard.clustered]
