"""Compresses one shard: matrices are read, clustered, coded and written on all cores at once.

Two stages share one pool of threads. The first reads a whole matrix in pieces and chooses its
scales and its codebook. The second reads the matrix again (mostly from the page cache) and turns
each piece into coded chunks. Pieces are written in their order as they are finished. So memory
holds a few pieces for each worker, whatever the size of a tensor, and the bytes that are written do
not depend on the number of workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from blake3 import blake3

from isotone import _native
from isotone.checkpoint.compressed.manifest import ClusteredRecord, KeptRecord
from isotone.checkpoint.files.safetensors_writer import ShardWriter, storage_order
from isotone.checkpoint.source.source import Source
from isotone.codec.arrays import SUFFIXES
from isotone.codec.packed import CHUNK_WEIGHTS, encode_chunk
from isotone.core.fit import Fit, fit
from isotone.core.float_format import FloatFormat
from isotone.engine.progress import Progress
from isotone.engine.threads import Threads
from isotone.pipeline.allocate.each_matrix import matrices_of
from isotone.pipeline.allocate.planned_matrix import PIECE_WEIGHTS, PlannedMatrix
from isotone.pipeline.write.tensor_sink import Piece, SmallArray, TensorSink
from isotone.plan.shards import Shard
from isotone.plan.tensors import Kept

_CACHED_SHARE = 0.25
"""A source larger than this share of the machine's memory is dropped from the page cache as it is
read, because it would push everything else out of it."""

Fitter: TypeAlias = Callable[[PlannedMatrix], Fit]
"""Clusters one matrix. It pickles where workers are other processes."""


def compress_shard(
    source: Source,
    shard: Shard,
    path: Path,
    threads: Threads,
    progress: Progress,
    fitter: Fitter | None = None,
) -> dict[str, Any]:
    """Write one shard.

    Parameters
    ----------
    source : Source
        The model.
    shard : Shard
        The tensors that go into the shard.
    path : Path
        The file to write. After an exception it does not exist.
    threads : Threads
        The threads to work on.
    progress : Progress
        Is told how many dense bytes are done.
    fitter : callable, optional
        Takes a PlannedMatrix and returns its Fit. By default a matrix is clustered by its weights
        alone.

    Returns
    -------
    dict of str to list of dict
        The records of the tensors as JSON, under `clustered` and `kept`.

    Raises
    ------
    InputError
        If weights cannot be clustered because they are NaN or infinite.
    FormatError
        If weights cannot be read.
    OSError
        If the file cannot be written.
    """
    expected = [(c.tensor.name + suffix, 2) for c in shard.clustered for suffix in SUFFIXES]
    expected += [(kept.tensor.name, len(kept.tensor.shape)) for kept in shard.kept]
    clustered: list[ClusteredRecord] = []
    kept: list[KeptRecord] = []
    small: list[SmallArray] = []
    with ShardWriter(path, expected) as writer:
        ordered = sorted(shard.kept, key=lambda item: storage_order(item.tensor.dtype))
        before, behind = _around_packed(ordered)
        for item in before:
            kept.append(_copy(source, item, shard.name, writer, progress))
        fits = fitter or (lambda matrix: _fit(source, matrix))
        for sink in _cluster(source, shard, writer, threads, progress, fits):
            clustered.append(sink.record)
            small += sink.small
        rest: list[SmallArray | Kept] = [*small, *behind]
        for entry in sorted(rest, key=lambda each: storage_order(_tag(each))):
            if isinstance(entry, Kept):
                kept.append(_copy(source, entry, shard.name, writer, progress))
            else:
                writer.add(entry.name, entry.tag, entry.array)
        writer.finish()
    return {"clustered": [asdict(r) for r in clustered], "kept": [asdict(r) for r in kept]}


def _tag(entry: SmallArray | Kept) -> str:
    return entry.tensor.dtype if isinstance(entry, Kept) else entry.tag


def _around_packed(ordered: Sequence[Kept]) -> tuple[list[Kept], list[Kept]]:
    """Split tensors that are stored bit for bit: before the packed ranks, and behind them."""
    packed = storage_order("U8", packed=True)
    before = [item for item in ordered if storage_order(item.tensor.dtype) < packed]
    return before, list(ordered[len(before) :])


@dataclass(frozen=True)
class _PieceTask:
    """Consecutive weights of one matrix, `start` to `stop`, to code for codebooks of length `k`."""

    matrix: PlannedMatrix
    fit: Fit
    k: int
    start: int
    stop: int

    @property
    def opens_matrix(self) -> bool:
        return self.start == 0

    @property
    def closes_tensor(self) -> bool:
        layout = self.matrix.plan.layout
        last_matrix = self.matrix.index == layout.n_matrices - 1
        return last_matrix and self.stop == layout.matrix_weights


def _cluster(
    source: Source,
    shard: Shard,
    writer: ShardWriter,
    threads: Threads,
    progress: Progress,
    fitter: Fitter,
) -> Iterator[TensorSink]:
    """Write the packed array of each tensor, and yield what remains to be written and recorded."""
    matrices = matrices_of(shard.clustered)
    fits = threads.map(lambda m: (m, fitter(m)), matrices, ahead=threads.n_threads + 1)
    pieces = threads.map(
        lambda task: (task, _encode(source, task)), _piece_tasks(fits), ahead=2 * threads.n_threads
    )
    sink: TensorSink | None = None
    for task, piece in pieces:
        if sink is None:
            sink = TensorSink(task.matrix.plan, shard.name, writer)
        if task.opens_matrix:
            sink.add_fit(task.fit)
        sink.add_piece(piece)
        progress.advance(len(piece.source))
        if task.closes_tensor:
            sink.finish()
            yield sink
            sink = None


def _fit(source: Source, matrix: PlannedMatrix) -> Fit:
    settings = matrix.plan.settings
    return fit(matrix.read_from(source), settings.scale, settings.method)


def _piece_tasks(fits: Iterable[tuple[PlannedMatrix, Fit]]) -> Iterator[_PieceTask]:
    """Yield the pieces of each tensor once all its matrices are clustered.

    All codebooks of a tensor are padded to one length, which is known only then.
    """
    for plan, group in groupby(fits, lambda pair: pair[0].plan):
        whole = list(group)
        k = max(len(found.codebook) for _, found in whole)
        n_weights = plan.layout.matrix_weights
        for matrix, found in whole:
            for start in range(0, n_weights, PIECE_WEIGHTS):
                yield _PieceTask(matrix, found, k, start, min(start + PIECE_WEIGHTS, n_weights))


def _encode(source: Source, task: _PieceTask) -> Piece:
    matrix, plan = task.matrix, task.matrix.plan
    float_format = FloatFormat(plan.tensor.dtype)
    dense = source.read(plan.tensor, matrix.start + task.start, matrix.start + task.stop)
    if source.n_bytes > _CACHED_SHARE * _memory_bytes():
        source.forget(plan.tensor, matrix.start + task.start, matrix.start + task.stop)
    bits = dense.view(float_format.bits_dtype)
    ranks = np.empty(len(bits), np.uint8)
    positions = task.fit.assign(bits, task.start, float_format, ranks)

    restored = np.empty_like(bits)
    task.fit.values(
        plan.matrix_shape, float_format, positions + task.start, bits[positions]
    ).decode(ranks, restored, start=task.start)

    coded = [
        encode_chunk(ranks[start : start + CHUNK_WEIGHTS], task.k)
        for start in range(0, len(ranks), CHUNK_WEIGHTS)
    ]
    return Piece(
        chunks=[data for data, _ in coded],
        entries=[entry for _, entry in coded],
        source=dense,
        restored=restored,
        squared_error=_native.squared_error(
            dense, restored.view(np.uint8), float_format.native, len(bits)
        ),
        positions=positions + (matrix.start + task.start),
        values=bits[positions],
    )


@cache
def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _copy(
    source: Source, kept: Kept, file: str, writer: ShardWriter, progress: Progress
) -> KeptRecord:
    tensor, hasher = kept.tensor, blake3()
    writer.begin(tensor.name, tensor.dtype, tensor.shape)
    for start in range(0, tensor.n_weights, PIECE_WEIGHTS):
        data = source.read(tensor, start, min(start + PIECE_WEIGHTS, tensor.n_weights))
        hasher.update(data.data)
        writer.write(data)
        progress.advance(len(data))
    writer.end()
    return KeptRecord(
        tensor.name, tensor.dtype, tensor.shape, file, kept.reason, hasher.hexdigest()
    )
