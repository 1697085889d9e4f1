"""Writes a directory with other values: the new arrays alone, or everything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from isotone.checkpoint.compressed.config import changed_config
from isotone.checkpoint.compressed.manifest import (
    CHANGED_VERSION,
    MANIFEST_FILE,
    FileRecord,
    check_file,
    hash_file,
)
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.overlay.base_search import base_path
from isotone.checkpoint.overlay.change import Change, fitted
from isotone.checkpoint.overlay.manifest import WEIGHTS_FILE, BaseReference, CodebookManifest
from isotone.checkpoint.overlay.rewritten import Recoded
from isotone.checkpoint.source.model_directory import CONFIG_FILE, INDEX_FILE
from isotone.checkpoint.staging.small_files import json_bytes, weight_index, write_small_files
from isotone.checkpoint.staging.staging import Staging, refuse_inside
from isotone.engine.progress import Progress, Silent
from isotone.engine.threads import Threads, worker_count
from isotone.errors import InputError


def write_codebooks(
    base: CompressedDirectory,
    changes: Iterable[Change],
    staging: Staging,
    arguments: dict[str, Any],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a codebook-only directory: what is new, and which base it belongs to.

    base: an open directory, codebook-only or complete. changes: at least one; each tensor once.
    staging: of OUT; the caller publishes. arguments: how the values came about, as JSON, in a key
    of their own: {"heal": {...}}.

    Raises InputError, naming the tensor, for a change that does not fit, and FormatError where the
    base is damaged. Cost: reads the base to hash it, and decodes what is changed; memory is a few
    chunks for each worker.
    """
    progress = progress or Silent()
    recoded = _recode(base, changes, staging, workers, progress)
    if not recoded.changed:
        raise InputError(f"{staging.out}: no change was given; expected at least one")
    progress.begin("writing", sum(each.record.stored_bytes for each in recoded.changed.values()))
    shard = _finish(staging, WEIGHTS_FILE, lambda path: recoded.write_new(path, progress))
    manifest = CodebookManifest(
        isotone_version=version("isotone"),
        base=BaseReference(base.digest, base_path(staging.out, base.path)),
        arguments=arguments,
        changed=tuple(each.record for each in recoded.changed.values()),
        files=(shard, *write_small_files(staging, _small_files(base))),
    )
    staging.write(MANIFEST_FILE, manifest.to_text().encode())


def write_complete(
    directory: CompressedDirectory,
    changes: Iterable[Change],
    staging: Staging,
    arguments: dict[str, Any],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a complete directory, which needs no base, with the same shards and files.

    directory: an open directory, codebook-only or complete. changes: maybe none. The rest is as
    for `write_codebooks`, `arguments` going on top of what the directory records. Nothing that an
    earlier run left in the staging is used again, for its values may have been others.

    Raises InputError and FormatError as `write_codebooks` does. Cost: reads the directory to hash
    it and to copy it, and decodes what is changed; memory is a piece, and a few chunks for each
    worker.
    """
    progress = progress or Silent()
    recoded = _recode(directory, changes, staging, workers, progress)
    shards = directory.manifest.by_shard
    progress.begin("writing", sum(recoded.n_bytes(r) for r in directory.manifest.stored))
    files = []
    for name, records in shards.items():
        write = partial(recoded.write_whole, records=records, progress=progress)
        files.append(_finish(staging, name, write))
    small = _small_files(directory)
    if len(shards) > 1:
        small[INDEX_FILE] = weight_index({name: staging.part(name) for name in shards})
    manifest = replace(
        directory.manifest,
        isotone_version=version("isotone"),
        arguments=directory.manifest.arguments | arguments,
        clustered=tuple(map(recoded.clustered_record, directory.manifest.clustered)),
        kept=tuple(map(recoded.kept_record, directory.manifest.kept)),
        files=(*files, *write_small_files(staging, small)),
        format_version=CHANGED_VERSION,
    )
    staging.write(MANIFEST_FILE, manifest.to_text().encode())


def _recode(
    directory: CompressedDirectory,
    changes: Iterable[Change],
    staging: Staging,
    workers: int | None,
    progress: Progress,
) -> Recoded:
    """The directory with its changes, in its own order, all held against what they change.

    Raises FormatError where a shard is damaged, for what came of it would look whole.
    """
    for layer in directory.layers:
        refuse_inside(staging.out, layer.path)
    given = _by_name(changes)
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
        changed = []
        fit = pool.map(lambda r: fitted(given[r.name], directory, r), chosen, 2 * n_workers)
        for record, found in zip(chosen, fit, strict=True):
            changed.append(found)
            progress.advance(record.dense_bytes)
    return Recoded(directory, changed)


def _check(path: Path, record: FileRecord) -> int:
    check_file(path, record)
    return record.n_bytes


def _by_name(changes: Iterable[Change]) -> dict[str, Change]:
    given: dict[str, Change] = {}
    for change in changes:
        if change.name in given:
            raise InputError(f"{change.name}: is changed twice; expected one change of a tensor")
        given[change.name] = change
    return given


def _small_files(directory: CompressedDirectory) -> dict[str, bytes]:
    """What goes along, the index aside; raises FormatError where one was changed."""
    small = directory.small_files()
    small.pop(INDEX_FILE, None)
    return {**small, CONFIG_FILE: json_bytes(changed_config(directory.config))}


def _finish(staging: Staging, name: str, write: Callable[[Path], None]) -> FileRecord:
    """Write a shard, give it its name, and describe it."""
    scratch = staging.scratch(name)
    with scratch.writing() as path:
        write(path)
        record = FileRecord(name, path.stat().st_size, hash_file(path))
    staging.finish(name, scratch, {})
    return record
