"""Turn a compressed directory back into dense safetensors that any tool loads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isotone.checkpoint.compressed.config import dense_config
from isotone.checkpoint.compressed.decode import decode_checked
from isotone.checkpoint.compressed.file_record import hash_file
from isotone.checkpoint.compressed.manifest import Record
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.files.location import locate, locate_found
from isotone.checkpoint.files.safetensors_writer import DenseShard
from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.opening import open_compressed
from isotone.checkpoint.source.weight_files import CONFIG_FILE, INDEX_FILE
from isotone.checkpoint.staging.open import open_staging
from isotone.checkpoint.staging.scratch import Scratch, new_scratch
from isotone.checkpoint.staging.small_files import json_bytes, weight_index, write_small_files
from isotone.checkpoint.staging.staging import Staging, refuse_inside, writing
from isotone.engine.local import LocalEngine
from isotone.engine.progress import Progress, Silent
from isotone.engine.tasks import Engine, independent
from isotone.engine.threads import Threads, worker_count
from isotone.pipeline.summary import tree_bytes


@dataclass(frozen=True)
class DecompressSummary:
    """The result of decompressing.

    Attributes
    ----------
    output_bytes : int
        The bytes of all files that were written.
    seconds : float
        The time that the call took.
    n_tensors : int
        The number of tensors that were written.
    edited : tuple of str
        The files beside the weights that were changed or removed after the directory was written.
        Changed files go along as they are now.
    """

    output_bytes: int
    seconds: float
    n_tensors: int
    edited: tuple[str, ...]


def decompress(
    directory: str | Path,
    out: str | Path,
    *,
    workers: int | None = None,
    engine: Engine | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DecompressSummary:
    """Write the dense model that a compressed directory stands for.

    Every tensor is checked against its recorded hash on the way. A call that was killed goes on
    after the last finished shard when it is repeated.

    Parameters
    ----------
    directory : str or Path
        A directory that isotone wrote, complete or codebook-only, or the URL of a complete one.
    out : str or Path
        The directory to write, or its URL. It must not exist, unless isotone wrote it and
        `overwrite` is given.
    workers : int, optional
        The number of threads; by default the cores that this process may use.
    engine : Engine, optional
        Where the work runs, instead of on threads of this process.
    overwrite : bool
        Replace `out` if isotone wrote it, and drop unfinished work of another job.
    progress : Progress, optional
        Is told how many dense bytes are done.

    Returns
    -------
    DecompressSummary
        Size and time.

    Raises
    ------
    InputError
        If `directory` is not isotone's, or the output cannot be written.
    FormatError
        If a file is damaged, or a decoded tensor does not have its recorded hash.

    Examples
    --------
    >>> import isotone
    >>> isotone.decompress("clustered", "dense").output_bytes  # doctest: +SKIP
    """
    started = time.monotonic()
    engine = engine or LocalEngine(n_threads=worker_count(workers))
    source = open_compressed(locate_found(directory))
    refuse_inside(out, directory)
    shards = source.manifest.by_shard
    job = {"decompress": source.digest}
    progress = progress or Silent()
    progress.begin("decompressing", sum(r.dense_bytes for rs in shards.values() for r in rs))
    with open_staging(out, job, overwrite=overwrite) as staging:
        missing = [name for name in shards if staging.record(name) is None]
        done = sum(r.dense_bytes for name in shards if name not in missing for r in shards[name])
        progress.advance(done)
        arguments = (source, staging.directory, engine.n_threads)
        with engine.start(_Decompressor, arguments, progress) as team:
            for name, scratch in team.results(independent(missing)):
                staging.finish(name, scratch, {})
        if len(shards) > 1:
            index = weight_index({name: staging.part(name) for name in shards})
            write_small_files(staging, {INDEX_FILE: index})
        edited = _write_companions(source, staging)
        with writing(staging.out):
            staging.publish()
    return DecompressSummary(
        output_bytes=tree_bytes(locate(out)),
        seconds=time.monotonic() - started,
        n_tensors=sum(len(records) for records in shards.values()),
        edited=edited,
    )


def _write_companions(source: CompressedDirectory, staging: Staging) -> tuple[str, ...]:
    """Write config.json and the companions as they are now; returns the names of edited ones."""
    there = [record for record in source.companions if (source.path / record.name).is_file()]
    written = write_small_files(staging, {each.name: source.path / each.name for each in there})
    write_small_files(staging, {CONFIG_FILE: json_bytes(dense_config(source.config))})
    edited = [record.name for record in source.companions if record not in written]
    recorded = {record.name: record.hash for record in source.manifest.files}
    if hash_file(source.path / CONFIG_FILE) != recorded.get(CONFIG_FILE):
        edited.insert(0, CONFIG_FILE)
    return tuple(edited)


class _Decompressor:
    """A worker that writes one shard after the other into a directory, on its threads."""

    def __init__(self, source: CompressedDirectory, directory: Path, n_threads: int) -> None:
        self._source, self._directory, self._n_threads = source, directory, n_threads
        self._shards, self._copies = source.manifest.by_shard, source.manifest.copies

    def __call__(self, name: str, progress: Progress) -> Scratch:
        """Write a shard, and return where it lies."""
        scratch = new_scratch(self._directory, name)
        with scratch.writing() as path:
            self._write(path, self._shards[name], progress)
        return scratch

    def _write(self, path: Path, records: Sequence[Record], progress: Progress) -> None:
        names = {r.name: [r.name, *(c.name for c in self._copies.get(r.name, ()))] for r in records}
        tensors = [TensorInfo(name, r.dtype, r.shape) for r in records for name in names[r.name]]
        shard = DenseShard(path, tensors)

        def write(record: Record) -> int:
            offset = 0
            for piece in decode_checked(self._source, record):
                for name in names[record.name]:
                    shard.write(name, offset, piece)
                offset += len(piece)
            return offset

        try:
            with Threads.start(self._n_threads) as threads:
                for n_bytes in threads.map(write, records, ahead=2 * self._n_threads):
                    progress.advance(n_bytes)
            shard.finish()
        except BaseException:
            shard.close()
            raise
