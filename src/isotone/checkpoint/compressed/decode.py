"""Tensors of a compressed directory as the dense bytes they stand for, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from isotone.checkpoint.compressed.manifest import ClusteredRecord, KeptRecord, Record
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.files.tensor_info import DTYPE_BYTES
from isotone.codec.packed import PackedReader
from isotone.core.float_format import Bits, FloatFormat
from isotone.core.values import Values
from isotone.errors import FormatError

_PIECE_WEIGHTS = 1 << 20


def restored(directory: CompressedDirectory, record: Record) -> Iterator[NDArray[np.uint8]]:
    """The dense bytes of a tensor, in order; memory is that of one chunk.

    After the last piece the whole is held against the recorded hash: raises FormatError where it
    does not fit, so what came before must not be published until the iterator has ended.
    """
    hasher = blake3()
    if isinstance(record, ClusteredRecord):
        pieces = _pieces(*_opened(directory, record))
    else:
        pieces = _kept(directory, record)
    for piece in pieces:
        hasher.update(piece.data)
        yield piece
    if hasher.hexdigest() != record.restored_hash:
        raise FormatError(f"{directory.where(record)} does not fit its hash")


def hash_with(reader: PackedReader, values: Values) -> str:
    """The hash of the dense bytes that some ranks and values stand for.

    reader: of the ranks. values: everything else. Raises FormatError for ranks that do not decode.
    Memory is that of one chunk.
    """
    hasher = blake3()
    for piece in _pieces(reader, values):
        hasher.update(piece.data)
    return hasher.hexdigest()


def restore_into(directory: CompressedDirectory, record: Record, out: NDArray[np.uint8]) -> None:
    """Write the dense bytes of a tensor, decoded in place; hashes nothing.

    out: [dense_bytes], contiguous, aligned to the tensor's dtype. Raises FormatError for whatever
    isotone cannot have written. Memory beside `out` is that of one chunk.
    """
    if isinstance(record, ClusteredRecord):
        bits = out.view(FloatFormat(record.dtype).bits_dtype)
        for start, stop, decode in _decoders(*_opened(directory, record)):
            decode(bits[start:stop])
        return
    start = 0
    for piece in _kept(directory, record):
        out[start : start + len(piece)] = piece
        start += len(piece)


def dense_pieces(
    directory: CompressedDirectory, record: Record
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The dense bytes of a tensor piece by piece, each with the position of its first weight.

    A piece's memory is used again for the next one. Hashes nothing; raises FormatError.
    """
    if isinstance(record, ClusteredRecord):
        dtype = FloatFormat(record.dtype).bits_dtype
        scratch = np.empty(0, dtype)
        for start, stop, decode in _decoders(*_opened(directory, record)):
            if len(scratch) < stop - start:
                scratch = np.empty(stop - start, dtype)
            decode(scratch[: stop - start])
            yield start, scratch[: stop - start].view(np.uint8)
        return
    start = 0
    for piece in _kept(directory, record):
        yield start, piece
        start += len(piece) // DTYPE_BYTES[record.dtype]


def _opened(directory: CompressedDirectory, record: ClusteredRecord) -> tuple[PackedReader, Values]:
    reader = directory.packed(record)
    return reader, directory.values(record, reader)


def _pieces(reader: PackedReader, values: Values) -> Iterator[NDArray[np.uint8]]:
    for start, stop, decode in _decoders(reader, values):
        out = np.empty(stop - start, values.float_format.bits_dtype)
        decode(out)
        yield out.view(np.uint8)


def _decoders(
    reader: PackedReader, values: Values
) -> Iterator[tuple[int, int, Callable[[Bits], None]]]:
    """For each chunk in order: where its weights begin and end, and what writes them."""
    scratch = np.empty(reader.layout.chunk_weights, np.uint8)  # new pages cost more than decoding
    for chunk, matrix, start, stop in reader.spans():
        base = matrix * reader.layout.matrix_weights
        decode = partial(_decode, reader, values, chunk, scratch, matrix, start)
        yield base + start, base + stop, decode


def _decode(
    reader: PackedReader,
    values: Values,
    chunk: int,
    scratch: NDArray[np.uint8],
    matrix: int,
    start: int,
    out: Bits,
) -> None:
    values.decode(reader.decode(chunk, scratch), out, matrix=matrix, start=start)


def _kept(directory: CompressedDirectory, record: KeptRecord) -> Iterator[NDArray[np.uint8]]:
    n_weights = int(np.prod(record.shape, dtype=np.int64))
    for start in range(0, n_weights, _PIECE_WEIGHTS):
        yield directory.read_kept(record, start, min(start + _PIECE_WEIGHTS, n_weights))
