"""Turn a compressed directory back into plain safetensors that any tool loads."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from isotone.checkpoint.compressed_config import dense_config
from isotone.checkpoint.compressed_directory import CompressedDirectory
from isotone.checkpoint.dense_shard import DenseShard
from isotone.checkpoint.location import locate, locate_found
from isotone.checkpoint.manifest import Record
from isotone.checkpoint.model_directory import CONFIG_FILE, INDEX_FILE
from isotone.checkpoint.small_files import json_bytes, weight_index, write_small_files
from isotone.checkpoint.source import TensorInfo
from isotone.checkpoint.staging import Staging, refuse_inside, writing
from isotone.engine.local import Progress, Silent, Workers, worker_count
from isotone.pipeline.restore import restored
from isotone.pipeline.summary import tree_bytes


@dataclass(frozen=True)
class DecompressSummary:
    """What decompressing came to."""

    output_bytes: int
    seconds: float
    n_tensors: int


def decompress(
    directory: str | Path,
    out: str | Path,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DecompressSummary:
    """Write the dense model that a compressed directory stands for.

    Every tensor is held against its recorded hash on the way. Killed and called again, it goes on
    after the last finished shard. Raises InputError and FormatError.
    """
    started = time.monotonic()
    n_workers = worker_count(workers)
    source = CompressedDirectory.open(locate_found(directory))
    refuse_inside(out, directory)
    shards = source.manifest.by_shard
    job = {"decompress": source.digest}
    progress = progress or Silent()
    progress.begin("decompressing", sum(r.dense_bytes for rs in shards.values() for r in rs))
    with Staging.open(out, job, overwrite=overwrite) as staging:
        for name, records in shards.items():
            if staging.record(name) is None:
                scratch = staging.scratch(name)
                with scratch.writing() as path:
                    _write_shard(source, records, path, n_workers, progress)
                staging.finish(name, scratch, {})
            else:
                progress.advance(sum(record.dense_bytes for record in records))
        small = source.small_files()
        small[CONFIG_FILE] = json_bytes(dense_config(source.config))
        small.pop(INDEX_FILE, None)
        if len(shards) > 1:
            small[INDEX_FILE] = weight_index({name: staging.part(name) for name in shards})
        write_small_files(staging, small)
        with writing(staging.out):
            staging.publish()
    return DecompressSummary(
        output_bytes=tree_bytes(locate(out)),
        seconds=time.monotonic() - started,
        n_tensors=sum(len(records) for records in shards.values()),
    )


def _write_shard(
    source: CompressedDirectory,
    records: list[Record],
    path: Path,
    n_workers: int,
    progress: Progress,
) -> None:
    shard = DenseShard(path, [TensorInfo(r.name, r.dtype, r.shape) for r in records])

    def write(record: Record) -> int:
        offset = 0
        for piece in restored(source, record):
            shard.write(record.name, offset, piece)
            offset += len(piece)
        return offset

    try:
        with Workers.start(n_workers) as pool:
            for n_bytes in pool.map(write, records, ahead=2 * n_workers):
                progress.advance(n_bytes)
        shard.finish()
    except BaseException:
        shard.close()
        path.unlink(missing_ok=True)
        raise
