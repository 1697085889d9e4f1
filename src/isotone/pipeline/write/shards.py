"""Writes all shards of a compressed directory, on any engine, and the files beside them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from isotone.checkpoint.compressed.config import compressed_config
from isotone.checkpoint.compressed.file_record import FileRecord, hash_file
from isotone.checkpoint.compressed.manifest import ClusteredRecord, KeptRecord, Manifest, Record
from isotone.checkpoint.compressed.record_parsing import parse_record
from isotone.checkpoint.source.companions import MANIFEST_FILE
from isotone.checkpoint.source.source import Source
from isotone.checkpoint.source.weight_files import CONFIG_FILE, INDEX_FILE
from isotone.checkpoint.staging.scratch import Scratch, new_scratch
from isotone.checkpoint.staging.small_files import json_bytes, weight_index, write_small_files
from isotone.checkpoint.staging.staging import Staging
from isotone.engine.progress import Progress
from isotone.engine.tasks import Engine, independent
from isotone.engine.threads import Threads
from isotone.pipeline.write.shard import Fitter, compress_shard
from isotone.plan.job import JobPlan
from isotone.plan.shards import Shard
from isotone.plan.tensors import Tied

ShardRecord: TypeAlias = dict[str, Any]
"""The records of a shard's tensors for the manifest, its size and its hash, as JSON."""


class ShardWork:
    """A worker that compresses one shard after the other.

    Parameters
    ----------
    source : Source
        The model.
    fitter : callable or None
        Clusters one matrix; None to cluster it by its weights alone.
    directory : Path
        Where the shards are written.
    n_threads : int
        The number of threads to use.
    """

    def __init__(
        self, source: Source, fitter: Fitter | None, directory: Path, n_threads: int
    ) -> None:
        self._source, self._fitter = source, fitter
        self._directory, self._n_threads = directory, n_threads

    def __call__(self, shard: Shard, progress: Progress) -> tuple[Scratch, ShardRecord]:
        """Compress a shard, and return where it lies and its record."""
        scratch = new_scratch(self._directory, shard.name)
        with scratch.writing() as path:
            with Threads.start(self._n_threads) as threads:
                record = compress_shard(self._source, shard, path, threads, progress, self._fitter)
            record |= {"hash": hash_file(path), "n_bytes": path.stat().st_size}
        return scratch, record


def compress_shards(
    plan: JobPlan,
    staging: Staging,
    engine: Engine,
    progress: Progress,
    fitter: Fitter | None,
) -> list[ShardRecord]:
    """Write every shard of a plan that is not finished yet.

    Parameters
    ----------
    plan : JobPlan
        The source, and the shards to write.
    staging : Staging
        The output directory under construction.
    engine : Engine
        Where the work runs.
    progress : Progress
        Is told how many dense bytes are done.
    fitter : callable or None
        Clusters one matrix; None to cluster it by its weights alone.

    Returns
    -------
    list of dict
        The record of each shard, in the order of the shards.
    """
    shards = plan.shards
    progress.begin("compressing", sum(shard.n_bytes for shard in shards))
    records = {shard.name: staging.record(shard.name) for shard in shards}
    progress.advance(sum(shard.n_bytes for shard in shards if records[shard.name]))
    missing = [shard for shard in shards if not records[shard.name]]
    missing.sort(key=lambda shard: -shard.n_bytes)  # a large shard that starts late would end late
    arguments = (plan.source, fitter, staging.directory, engine.n_threads)
    with engine.start(ShardWork, arguments, progress) as team:
        for shard, (scratch, record) in team.results(independent(missing)):
            staging.finish(shard.name, scratch, record)
            records[shard.name] = record
    return [records[shard.name] or {} for shard in shards]


def assemble(
    plan: JobPlan, records: Sequence[ShardRecord], arguments: dict[str, Any], staging: Staging
) -> None:
    """Write everything that is not a shard: companions, config, index and, last, the manifest.

    Parameters
    ----------
    plan : JobPlan
        The source, its shards, and which tensors are tied.
    records : sequence of dict
        The record of each shard, in the order of the shards.
    arguments : dict
        What the model was compressed with, for the manifest.
    staging : Staging
        The output directory under construction.
    """
    source, shards = plan.source, plan.shards
    clustered = [parse_record(ClusteredRecord, r) for done in records for r in done["clustered"]]
    kept = [parse_record(KeptRecord, r) for done in records for r in done["kept"]]
    stored: list[Record] = [*clustered, *kept]
    hashes = {record.name: record.source_hash for record in stored}
    kept += [_tied_record(tied, hashes[tied.to]) for tied in plan.tied]
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
        isotone_version=version("isotone"),
        arguments=arguments,
        source_bytes=source.n_bytes,
        skipped=tuple(source.skipped),
        clustered=tuple(clustered),
        kept=tuple(kept),
        files=tuple(files),
    )
    staging.write(MANIFEST_FILE, manifest.to_text().encode())


def _tied_record(tied: Tied, source_hash: str) -> KeptRecord:
    """Return the record of a tensor that is stored under the name of another one."""
    tensor = tied.tensor
    return KeptRecord(tensor.name, tensor.dtype, tensor.shape, "", "tied", source_hash, tied.to)
