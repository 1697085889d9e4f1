"""Tensors of a compressed directory as the dense bytes they stand for, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from isotone.checkpoint.compressed_directory import CompressedDirectory
from isotone.checkpoint.manifest import ClusteredRecord, KeptRecord, Record
from isotone.core.clustered_tensor import restore
from isotone.errors import FormatError

_PIECE_WEIGHTS = 1 << 20


def restored(directory: CompressedDirectory, record: Record) -> Iterator[NDArray[np.uint8]]:
    """The dense bytes of a tensor, in order; memory is that of one chunk.

    After the last piece the whole is held against the recorded hash: raises FormatError where it
    does not fit, so what came before must not be published until the iterator has ended.
    """
    hasher = blake3()
    if isinstance(record, ClusteredRecord):
        pieces = _clustered(directory, record)
    else:
        pieces = _kept(directory, record)
    for piece in pieces:
        hasher.update(piece.data)
        yield piece
    if hasher.hexdigest() != record.restored_hash:
        raise FormatError(f"{directory.path / record.file}: {record.name} does not fit its hash")


def _clustered(
    directory: CompressedDirectory, record: ClusteredRecord
) -> Iterator[NDArray[np.uint8]]:
    reader = directory.packed(record)
    tensor = directory.values(record, reader)
    for chunk, matrix, start, stop in reader.spans():
        ranks = reader.decode(chunk)
        out = np.empty(len(ranks), tensor.float_format.bits_dtype)
        restore(tensor, matrix, start, ranks, out)
        base = matrix * reader.layout.matrix_weights
        first, last = np.searchsorted(tensor.protected_index, [base + start, base + stop])
        inside = tensor.protected_index[first:last] - (base + start)
        out[inside] = tensor.protected_value[first:last]
        yield out.view(np.uint8)


def _kept(directory: CompressedDirectory, record: KeptRecord) -> Iterator[NDArray[np.uint8]]:
    n_weights = int(np.prod(record.shape, dtype=np.int64))
    for start in range(0, n_weights, _PIECE_WEIGHTS):
        yield directory.read_kept(record, start, min(start + _PIECE_WEIGHTS, n_weights))
