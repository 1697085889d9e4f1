"""Turn a compressed directory back into plain safetensors that any tool loads."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from isotone.checkpoint.compressed_config import dense_config
from isotone.checkpoint.compressed_directory import CompressedDirectory
from isotone.checkpoint.dense_shard import DenseShard
from isotone.checkpoint.manifest import Record
from isotone.checkpoint.model_directory import CONFIG_FILE, INDEX_FILE
from isotone.checkpoint.source import TensorInfo
from isotone.checkpoint.staging import Staging, refuse_inside, writing
from isotone.engine.local import Progress, Silent, Workers, worker_count
from isotone.errors import FormatError
from isotone.pipeline.restore import restored


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
    source = CompressedDirectory.open(Path(directory))
    refuse_inside(Path(out), Path(directory))
    shards: dict[str, list[Record]] = {}
    for record in source.manifest.stored:
        shards.setdefault(record.file, []).append(record)
    job = {"decompress": source.manifest.digest}
    progress = progress or Silent()
    progress.begin("decompressing", sum(r.dense_bytes for rs in shards.values() for r in rs))
    with Staging.open(Path(out), job, overwrite=overwrite) as staging:
        for name, records in shards.items():
            if staging.record(name) is None:
                _write_shard(source, records, staging.scratch(name), n_workers, progress)
                staging.finish(name, {})
            else:
                progress.advance(sum(record.dense_bytes for record in records))
        _copy_companions(source, staging)
        staging.write(CONFIG_FILE, _plain_config(source))
        if len(shards) > 1:
            staging.write(INDEX_FILE, _index(shards))
        with writing(staging.out):
            staging.publish()
    return DecompressSummary(
        output_bytes=sum(p.stat().st_size for p in Path(out).rglob("*") if p.is_file()),
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


def _copy_companions(source: CompressedDirectory, staging: Staging) -> None:
    """The tokenizer and the like; not what describes the compressed form.

    All small files are held against their hashes, config.json among them, which is written anew.
    """
    for record in source.manifest.files:
        if record.name in source.manifest.shards:
            continue
        path = source.path / record.name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
        if blake3(content).hexdigest() != record.hash:
            raise FormatError(f"{path}: was changed after it was written; isotone verify says more")
        if record.name not in (CONFIG_FILE, INDEX_FILE):
            staging.write(record.name, content)


def _plain_config(source: CompressedDirectory) -> bytes:
    return (json.dumps(dense_config(source.config), indent=2, ensure_ascii=False) + "\n").encode()


def _index(shards: dict[str, list[Record]]) -> bytes:
    index = {
        "metadata": {"total_size": sum(r.dense_bytes for rs in shards.values() for r in rs)},
        "weight_map": {r.name: name for name, records in shards.items() for r in records},
    }
    return (json.dumps(index, indent=2) + "\n").encode()
