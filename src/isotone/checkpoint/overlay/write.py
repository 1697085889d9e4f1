"""Writes a directory with new values: a codebook-only one (an overlay), or a complete one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from isotone.checkpoint.compressed.config import overlay_config
from isotone.checkpoint.compressed.file_record import FileRecord, check_file, hash_file
from isotone.checkpoint.compressed.manifest import OVERLAY_VERSION
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.overlay.base_search import base_path
from isotone.checkpoint.overlay.manifest import WEIGHTS_FILE, BaseReference, OverlayManifest
from isotone.checkpoint.overlay.overlaid import OverlaidDirectory
from isotone.checkpoint.overlay.tensor_overlay import TensorOverlay, fit_overlay
from isotone.checkpoint.source.companions import MANIFEST_FILE
from isotone.checkpoint.source.weight_files import CONFIG_FILE, INDEX_FILE
from isotone.checkpoint.staging.small_files import json_bytes, weight_index, write_small_files
from isotone.checkpoint.staging.staging import Staging, refuse_inside
from isotone.engine.progress import Progress, Silent
from isotone.engine.threads import Threads, worker_count
from isotone.errors import InputError


def write_overlay(
    base: CompressedDirectory,
    overlays: Iterable[TensorOverlay],
    staging: Staging,
    arguments: dict[str, Any],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a codebook-only directory: the new values, and the base that they belong to.

    Parameters
    ----------
    base : CompressedDirectory
        An open directory, codebook-only or complete.
    overlays : iterable of TensorOverlay
        The new values of at least one tensor, each tensor once.
    staging : Staging
        The staging of OUT; the caller publishes it.
    arguments : dict
        How the values were made, as JSON, under a key of its own: `{"heal": {...}}`.
    workers : int, optional
        The number of threads; by default one for each core.
    progress : Progress, optional
        Told how far the work has come.

    Raises
    ------
    InputError
        If no new values are given, or some do not fit; the message names the tensor.
    FormatError
        If the base is damaged.

    Notes
    -----
    Reads the base to hash it, and decodes the tensors with new values. Memory is a few chunks for
    each worker.
    """
    progress = progress or Silent()
    overlaid = _overlaid(base, overlays, staging, workers, progress)
    new = [each.record for each in overlaid.overlays.values()]
    if not new:
        raise InputError(f"{staging.out}: no new values were given; expected those of a tensor")
    progress.begin("writing", sum(record.stored_bytes for record in new))
    shard = _finish(staging, WEIGHTS_FILE, lambda path: overlaid.write_new(path, progress))
    manifest = OverlayManifest(
        isotone_version=version("isotone"),
        base=BaseReference(base.digest, base_path(staging.out, base.path)),
        arguments=arguments,
        changed=tuple(new),
        files=(shard, *write_small_files(staging, _small_files(base))),
    )
    staging.write(MANIFEST_FILE, manifest.to_text().encode())


def write_complete(
    directory: CompressedDirectory,
    overlays: Iterable[TensorOverlay],
    staging: Staging,
    arguments: dict[str, Any],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a complete directory, which needs no base, with the same shards and files.

    Parameters
    ----------
    directory : CompressedDirectory
        An open directory, codebook-only or complete.
    overlays : iterable of TensorOverlay
        New values, each tensor once; may be empty.
    staging : Staging
        The staging of OUT; the caller publishes it. Nothing that an earlier run left in it is used
        again, because its values may have been others.
    arguments : dict
        How the values were made, as JSON; added to the arguments that the directory records.
    workers : int, optional
        The number of threads; by default one for each core.
    progress : Progress, optional
        Told how far the work has come.

    Raises
    ------
    InputError
        If new values do not fit; the message names the tensor.
    FormatError
        If the directory is damaged.

    Notes
    -----
    Reads the directory to hash it and once more to copy it, and decodes the tensors with new
    values. Memory is a piece, and a few chunks for each worker.
    """
    progress = progress or Silent()
    overlaid = _overlaid(directory, overlays, staging, workers, progress)
    shards = directory.manifest.by_shard
    progress.begin("writing", sum(overlaid.n_bytes(r) for r in directory.manifest.stored))
    files = []
    for name, records in shards.items():
        write = partial(overlaid.write_whole, records=records, progress=progress)
        files.append(_finish(staging, name, write))
    small = _small_files(directory)
    if len(shards) > 1:
        small[INDEX_FILE] = weight_index({name: staging.part(name) for name in shards})
    manifest = replace(
        directory.manifest,
        isotone_version=version("isotone"),
        arguments=directory.manifest.arguments | arguments,
        clustered=tuple(map(overlaid.clustered_record, directory.manifest.clustered)),
        kept=tuple(map(overlaid.kept_record, directory.manifest.kept)),
        files=(*files, *write_small_files(staging, small)),
        format_version=OVERLAY_VERSION,
    )
    staging.write(MANIFEST_FILE, manifest.to_text().encode())


def _overlaid(
    directory: CompressedDirectory,
    overlays: Iterable[TensorOverlay],
    staging: Staging,
    workers: int | None,
    progress: Progress,
) -> OverlaidDirectory:
    """Check new values against their tensors, and the hashes of the directory's shards.

    A damaged shard is refused, because what was made of it would look intact.
    """
    for layer in directory.layers:
        refuse_inside(staging.out, layer.path)
    given = _by_name(overlays)
    records = {record.name: record for record in directory.manifest.stored}
    for name in given:
        if name not in records:
            raise InputError(
                f"{name}: {directory.path} stores no such tensor; for example {next(iter(records))}"
            )
    chosen = [record for name, record in records.items() if name in given]
    shards = list(directory.shard_files)
    n_workers = worker_count(workers)
    with Threads.start(n_workers) as pool:
        progress.begin("checking", sum(record.n_bytes for _, record in shards))
        for n_bytes in pool.map(lambda file: _check(*file), shards, 2 * n_workers):
            progress.advance(n_bytes)
        progress.begin("decoding", sum(record.dense_bytes for record in chosen))
        fitted = []
        fits = pool.map(lambda r: fit_overlay(given[r.name], directory, r), chosen, 2 * n_workers)
        for record, found in zip(chosen, fits, strict=True):
            fitted.append(found)
            progress.advance(record.dense_bytes)
    return OverlaidDirectory(directory, fitted)


def _check(path: Path, record: FileRecord) -> int:
    check_file(path, record)
    return record.n_bytes


def _by_name(overlays: Iterable[TensorOverlay]) -> dict[str, TensorOverlay]:
    given: dict[str, TensorOverlay] = {}
    for overlay in overlays:
        if overlay.name in given:
            raise InputError(f"{overlay.name}: is given twice; expected each tensor once")
        given[overlay.name] = overlay
    return given


def _small_files(directory: CompressedDirectory) -> dict[str, bytes | Path]:
    """Return the files beside the shards, without the index, as they are now."""
    companions = {record.name: directory.path / record.name for record in directory.companions}
    return {**companions, CONFIG_FILE: json_bytes(overlay_config(directory.config))}


def _finish(staging: Staging, name: str, write: Callable[[Path], None]) -> FileRecord:
    """Write a shard, finish it in the staging, and return its record."""
    scratch = staging.scratch(name)
    with scratch.writing() as path:
        write(path)
        record = FileRecord(name, path.stat().st_size, hash_file(path))
    staging.finish(name, scratch, {})
    return record
