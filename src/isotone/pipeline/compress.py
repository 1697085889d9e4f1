"""Compress a checkpoint: plan everything, then stream one shard at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from isotone.checkpoint.compressed_config import compressed_config
from isotone.checkpoint.manifest import (
    MANIFEST_FILE,
    ClusteredRecord,
    FileRecord,
    KeptRecord,
    Manifest,
    Record,
    hash_file,
    parse_record,
)
from isotone.checkpoint.model_directory import CONFIG_FILE, INDEX_FILE
from isotone.checkpoint.plan import (
    Clustered,
    Rule,
    Selection,
    Settings,
    Shard,
    TensorPlan,
    Tied,
    plan_shards,
    plan_tensors,
)
from isotone.checkpoint.small_files import json_bytes, weight_index, write_small_files
from isotone.checkpoint.source import Source
from isotone.checkpoint.staging import Staging, refuse_inside, writing
from isotone.checkpoint.tying import find_tied
from isotone.core.balance import ScaleRule
from isotone.core.cluster import check_k
from isotone.core.fit import Fit
from isotone.core.protection import Protection
from isotone.core.solver import MAX_K
from isotone.engine.local import Progress, Silent, Workers, worker_count
from isotone.errors import InputError, IsotoneError
from isotone.pipeline.allocation import Prices, check_bits, price_for
from isotone.pipeline.calibrated_job import (
    calibrated_price,
    identity_of,
    judged,
    note_fallbacks,
    open_calibration,
    record_of,
)
from isotone.pipeline.calibration import Calibration
from isotone.pipeline.compress_shard import compress_shard
from isotone.pipeline.damage import Damage, relative_error
from isotone.pipeline.open_source import open_source
from isotone.pipeline.planned_matrix import PlannedMatrix
from isotone.pipeline.summary import CompressSummary, summarise
from isotone.pipeline.vocabulary import has_row_per_token

DEFAULT_BITS = 4.0
"""What --method entropy aims at when no bits are given."""

_K = 16
_PRICE = "price"


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
    overwrite: bool = False,
    progress: Progress | None = None,
) -> CompressSummary:
    """Cluster the weight matrices of a model into a new directory.

    model: a model directory, a .safetensors or .gguf file, or a hub id.
    out: a directory that does not exist yet (or is isotone's own, with overwrite).
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
    workers: threads; the cores of this process by default. The output does not depend on it.

    Killed and called again with the same arguments, it goes on after the last finished shard.
    Raises InputError and FormatError. Memory is set by workers, not by the model.
    """
    started = time.monotonic()
    target = _target(method, bits)
    if k is None:
        k = _K if target is None else MAX_K
    check_k(k)
    selection = Selection(
        Settings(k, Protection.parse(protect), ScaleRule.parse(scale)),
        tuple(include),
        tuple(exclude),
        tuple(Rule.parse(text) for text in settings),
    )
    if target is not None:
        _refuse_fractions(selection)
    n_workers = worker_count(workers)
    source = open_source(model)
    _refuse_quantized(source, model)
    refuse_inside(out, model)
    progress = progress or Silent()
    tied_to = find_tied(source)
    plans = [_without_columns(p, source) for p in plan_tensors(source, selection, tied_to)]
    job: dict[str, Any] = {
        "isotone": version("isotone"),
        "arguments": {
            "k": k,
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
            damage = relative_error(source, tied_to)
            plans = _priced(source, plans, target, damage, staging, n_workers, progress, known)
        elif known is not None:
            with Workers.start(n_workers) as pool:
                judged(known, clustered, staging, pool, progress)
        shards = plan_shards(plans)
        fitter = None if known is None else known.fit
        records = _compress_shards(source, shards, staging, n_workers, progress, fitter)
        if known is not None:
            job["arguments"]["calibration"] = record_of(known, clustered)
        tied = [plan for plan in plans if isinstance(plan, Tied)]
        _assemble(source, shards, records, tied, job, staging)
        with writing(staging.out):
            staging.publish()
    return summarise(out, time.monotonic() - started)


def _refuse_quantized(source: Source, model: str | Path) -> None:
    quantization = source.config.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise InputError(
            f"{model}: is quantized already ({method or 'unknown method'}); expected a model with "
            "its original weights"
        )


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


def _target(method: str | None, bits: float | None) -> float | None:
    """The bits that are asked for, or None for k-means."""
    if method not in (None, "kmeans", "entropy"):
        raise InputError(f"method is {method!r}; expected kmeans or entropy")
    if method == "kmeans" and bits is not None:
        raise InputError(
            "bits were given, and method kmeans; k-means takes k, --bits goes with --method entropy"
        )
    if bits is not None:
        check_bits(bits)
    return DEFAULT_BITS if method == "entropy" and bits is None else bits


def _refuse_fractions(selection: Selection) -> None:
    """With a price, a weight is protected where that is cheaper, or not at all."""
    for settings in (selection.settings, *(r.apply(selection.settings) for r in selection.rules)):
        if settings.protect.fraction:
            raise InputError(
                f"protect is {settings.protect}; expected auto or off where bits are asked for"
            )


def _priced(
    source: Source,
    plans: list[TensorPlan],
    bits: float,
    damage: Damage,
    staging: Staging,
    n_workers: int,
    progress: Progress,
    calibration: Calibration | None,
) -> list[TensorPlan]:
    """The plans at the price that leads to so many bits; a resumed run finds the price again."""
    price = staging.note(_PRICE)
    if price is None:
        clustered = [plan for plan in plans if isinstance(plan, Clustered)]
        with Workers.start(n_workers) as workers:
            if calibration is None:
                price = price_for(bits, source, clustered, damage, workers, progress)
            else:
                price = calibrated_price(
                    calibration, source, clustered, bits, damage, workers, progress
                )
                note_fallbacks(calibration, staging)
        staging.take_note(_PRICE, price)
    prices = Prices(price, damage)
    return [prices.apply(plan) if isinstance(plan, Clustered) else plan for plan in plans]


def _compress_shards(
    source: Source,
    shards: list[Shard],
    staging: Staging,
    n_workers: int,
    progress: Progress,
    fitter: Callable[[PlannedMatrix], Fit] | None,
) -> list[dict[str, Any]]:
    records = []
    progress.begin("compressing", sum(shard.n_bytes for shard in shards))
    before = source.identity()
    for shard in shards:
        record = staging.record(shard.name)
        if record is None:
            scratch = staging.scratch(shard.name)
            with scratch.writing() as path:
                with Workers.start(n_workers) as workers:
                    record = compress_shard(source, shard, path, workers, progress, fitter)
                if source.identity() != before:
                    raise InputError("the model's files changed while they were read; run it again")
                record |= {"hash": hash_file(path), "n_bytes": path.stat().st_size}
            staging.finish(shard.name, scratch, record)
        else:
            progress.advance(shard.n_bytes)
        records.append(record)
    return records


def _assemble(
    source: Source,
    shards: list[Shard],
    records: list[dict[str, Any]],
    tied: list[Tied],
    job: dict[str, Any],
    staging: Staging,
) -> None:
    """Write everything that is not a shard; the manifest last."""
    clustered = [parse_record(ClusteredRecord, r) for done in records for r in done["clustered"]]
    kept = [parse_record(KeptRecord, r) for done in records for r in done["kept"]]
    stored: list[Record] = [*clustered, *kept]
    by_name = {record.name: record for record in stored}
    for plan in tied:
        origin = by_name[plan.to]
        tensor = plan.tensor
        kept.append(
            KeptRecord(
                tensor.name, tensor.dtype, tensor.shape, "", "tied", origin.source_hash, plan.to
            )
        )
    files = [
        FileRecord(shard.name, record["n_bytes"], record["hash"])
        for shard, record in zip(shards, records, strict=True)
    ]
    small = {companion.name: companion.content for companion in source.companions}
    small[CONFIG_FILE] = json_bytes(compressed_config(source.config, shards[0].tensors))
    if len(shards) > 1:
        small[INDEX_FILE] = weight_index({shard.name: staging.part(shard.name) for shard in shards})
    files += write_small_files(staging, small)
    manifest = Manifest(
        isotone_version=job["isotone"],
        arguments=job["arguments"],
        source_bytes=source.n_bytes,
        skipped=tuple(source.skipped),
        clustered=tuple(clustered),
        kept=tuple(kept),
        files=tuple(files),
    )
    staging.write(MANIFEST_FILE, manifest.to_text().encode())
