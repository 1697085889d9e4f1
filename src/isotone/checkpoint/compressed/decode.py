"""Decodes the tensors of a compressed directory to dense bytes, one piece after the other.

This is the only place where a directory's arrays become weights. A piece of a clustered tensor is
one coded chunk; a piece of any other tensor is a run of a million weights. Memory is that of one
piece, whatever the size of a tensor.
"""

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


def decode_pieces(
    directory: CompressedDirectory, record: Record
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Decode a tensor piece by piece, without checking its hash.

    Parameters
    ----------
    directory : CompressedDirectory
        The open directory.
    record : ClusteredRecord or KeptRecord
        A stored tensor of the directory.

    Yields
    ------
    start : int
        The position of the piece's first weight in the flattened tensor.
    piece : uint8 array, `[n_bytes]`
        Dense little-endian bytes. The memory is used again for the next piece.

    Raises
    ------
    FormatError
        If the arrays are not what isotone can have written.
    """
    if isinstance(record, ClusteredRecord):
        yield from _decoded(*_opened(directory, record))
    else:
        yield from _kept(directory, record)


def decode_checked(directory: CompressedDirectory, record: Record) -> Iterator[NDArray[np.uint8]]:
    """Decode a tensor piece by piece, and check its hash after the last piece.

    Parameters
    ----------
    directory : CompressedDirectory
        The open directory.
    record : ClusteredRecord or KeptRecord
        A stored tensor of the directory.

    Yields
    ------
    uint8 array, `[n_bytes]`
        Dense little-endian bytes, in order. The memory is used again for the next piece.

    Raises
    ------
    FormatError
        If the arrays are not what isotone can have written, or if the whole does not fit the
        recorded hash. The hash is known after the last piece only, so nothing may be published
        before the iterator has ended.
    """
    hasher = blake3()
    for _, piece in decode_pieces(directory, record):
        hasher.update(piece.data)
        yield piece
    if hasher.hexdigest() != record.dense_hash:
        raise FormatError(f"{directory.where(record)} does not fit its hash")


def decode_into(directory: CompressedDirectory, record: Record, out: NDArray[np.uint8]) -> None:
    """Decode a tensor in place, without checking its hash.

    Parameters
    ----------
    directory : CompressedDirectory
        The open directory.
    record : ClusteredRecord or KeptRecord
        A stored tensor of the directory.
    out : uint8 array, `[dense_bytes]`
        Receives the dense bytes; contiguous and aligned to the tensor's dtype.

    Raises
    ------
    FormatError
        If the arrays are not what isotone can have written.
    """
    if isinstance(record, ClusteredRecord):
        bits = out.view(FloatFormat(record.dtype).bits_dtype)
        for start, stop, decode in _chunks(*_opened(directory, record)):
            decode(bits[start:stop])
        return
    itemsize = DTYPE_BYTES[record.dtype]
    for start, piece in _kept(directory, record):
        out[start * itemsize : start * itemsize + len(piece)] = piece


def decoded_hash(reader: PackedReader, values: Values) -> str:
    """Return the hash of the dense bytes that ranks and values stand for.

    Parameters
    ----------
    reader : PackedReader
        The ranks of a tensor.
    values : Values
        Its codebook, scales and protected weights.

    Returns
    -------
    str
        The BLAKE3 hash in hexadecimal.

    Raises
    ------
    FormatError
        If the ranks do not decode.
    """
    hasher = blake3()
    for _, piece in _decoded(reader, values):
        hasher.update(piece.data)
    return hasher.hexdigest()


def _opened(directory: CompressedDirectory, record: ClusteredRecord) -> tuple[PackedReader, Values]:
    reader = directory.packed(record)
    return reader, directory.values(record, reader)


def _decoded(reader: PackedReader, values: Values) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Decode each chunk to the same memory: new pages cost more than decoding."""
    scratch = np.empty(0, values.float_format.bits_dtype)
    for start, stop, decode in _chunks(reader, values):
        if len(scratch) < stop - start:
            scratch = np.empty(stop - start, scratch.dtype)
        decode(scratch[: stop - start])
        yield start, scratch[: stop - start].view(np.uint8)


def _chunks(
    reader: PackedReader, values: Values
) -> Iterator[tuple[int, int, Callable[[Bits], None]]]:
    """Yield for each chunk where its weights begin and end, and the function that decodes it."""
    ranks = np.empty(reader.layout.chunk_weights, np.uint8)  # used again for every chunk
    for chunk, matrix, start, stop in reader.spans():
        base = matrix * reader.layout.matrix_weights
        decode = partial(_decode_chunk, reader, values, chunk, ranks, matrix, start)
        yield base + start, base + stop, decode


def _decode_chunk(
    reader: PackedReader,
    values: Values,
    chunk: int,
    ranks: NDArray[np.uint8],
    matrix: int,
    start: int,
    out: Bits,
) -> None:
    values.decode(reader.decode(chunk, ranks), out, matrix=matrix, start=start)


def _kept(
    directory: CompressedDirectory, record: KeptRecord
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    (array,) = directory.arrays(record)
    for start in range(0, array.n_weights, _PIECE_WEIGHTS):
        yield start, directory.read(array, start, min(start + _PIECE_WEIGHTS, array.n_weights))
