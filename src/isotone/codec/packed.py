"""Ranks as bytes: chunks that decode independently, each in the smaller of two codings.

The layout is specified in docs/format.md. A chunk holds the ranks of a run of weights of one
matrix, either at a fixed width or coded by rANS with its own frequencies. So parts of a tensor can
be decoded in parallel and by range, and rows whose ranks are distributed differently are coded by
what they hold. Everything in a header is checked against the bytes that are there before anything
is allocated.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isotone import _native
from isotone.core.float_format import FloatFormat
from isotone.core.rate import (
    CHUNK_ENTRY_BYTES,
    fixed_width_bytes,
    packed_header_bytes,
    rank_bits,
    rans_head_bytes,
)
from isotone.errors import FormatError

CHUNK_WEIGHTS = 1 << 18
"""Weights in a chunk when isotone writes; a reader takes what the header says."""

ALIGNMENT = 8
"""Packed bytes are padded to a multiple of this, so that arrays behind them stay aligned."""

MAX_AXES = 8
"""The number of axes that a header has room for."""

_MAGIC = b"ISOT"
_LAYOUT = 1
_FIXED = struct.Struct("<4sBBBBHHII")
_FORMAT_CODES = {FloatFormat.BF16: 0, FloatFormat.F16: 1, FloatFormat.F32: 2}
_FORMATS = {code: float_format for float_format, code in _FORMAT_CODES.items()}
_FIXED_WIDTH_FLAG = 1 << 31
_MAX_CHUNK_WEIGHTS = 1 << 20


@dataclass(frozen=True)
class PackedLayout:
    """What the header of a packed tensor says, without the lengths of its chunks.

    Attributes
    ----------
    shape : tuple of int
        The shape of the tensor.
    float_format : FloatFormat
        The format of its weights.
    k : int
        The number of centroids in each codebook, 1 to 256.
    n_matrices : int
        1, or `shape[0]` for a stack of matrices.
    chunk_weights : int
        The number of weights in a chunk; the last chunk of each matrix may be shorter.
    """

    shape: tuple[int, ...]
    float_format: FloatFormat
    k: int
    n_matrices: int
    chunk_weights: int = CHUNK_WEIGHTS

    @property
    def matrix_weights(self) -> int:
        """The number of weights in each matrix."""
        return math.prod(self.shape) // self.n_matrices

    @property
    def chunks_a_matrix(self) -> int:
        """The number of chunks of each matrix; a chunk never crosses into the next matrix."""
        return -(-self.matrix_weights // self.chunk_weights)

    @property
    def n_chunks(self) -> int:
        """The number of chunks in all matrices."""
        return self.n_matrices * self.chunks_a_matrix

    @property
    def header_bytes(self) -> int:
        """Bytes before the first chunk; known before anything is coded."""
        return packed_header_bytes(len(self.shape), self.n_chunks)

    def span(self, chunk: int) -> tuple[int, int, int]:
        """Return where a chunk lies.

        Parameters
        ----------
        chunk : int
            The index of the chunk in the tensor.

        Returns
        -------
        matrix, start, stop : int
            The index of its matrix, and the positions in that matrix of the chunk's first weight
            and of the weight behind its last.
        """
        matrix, i = divmod(chunk, self.chunks_a_matrix)
        start = i * self.chunk_weights
        return matrix, start, min(start + self.chunk_weights, self.matrix_weights)

    def header(self, lengths: list[int]) -> bytes:
        """Return the header.

        Parameters
        ----------
        lengths : list of int
            The entry of each chunk, as `encode_chunk` returned it.

        Returns
        -------
        bytes
            `header_bytes` long.
        """
        fixed = _FIXED.pack(
            _MAGIC,
            _LAYOUT,
            _FORMAT_CODES[self.float_format],
            len(self.shape),
            0,
            self.k,
            0,
            self.n_matrices,
            self.chunk_weights,
        )
        return fixed + np.array(self.shape, "<u8").tobytes() + np.array(lengths, "<u4").tobytes()


def encode_chunk(ranks: NDArray[np.uint8], k: int) -> tuple[NDArray[np.uint8], int]:
    """Code a chunk of ranks, by rANS or at a fixed width, whichever is smaller.

    Parameters
    ----------
    ranks : uint8 array, `[n]`
        Ranks below k.
    k : int
        The number of centroids, 1 to 256.

    Returns
    -------
    coded : uint8 array
        The coded bytes.
    entry : int
        What the header says of the chunk: its length, and a flag in bit 31 for a fixed width.
    """
    out = np.empty(fixed_width_bytes(len(ranks), k), np.uint8)
    n_bytes = _native.rans_encode(ranks, max(k, 2), out)
    if n_bytes:
        return out[:n_bytes], n_bytes
    _native.pack(ranks, rank_bits(k), out)
    return out, len(out) | _FIXED_WIDTH_FLAG


class PackedReader:
    """Reads a packed tensor, or any of its chunks, from wherever its bytes are.

    Parameters
    ----------
    read : callable
        Takes two offsets, and returns the bytes between them as a uint8 array.
    n_bytes : int
        The number of bytes there are.
    name : str
        The name of the tensor, for messages.

    Raises
    ------
    FormatError
        If the header and the number of bytes do not agree.
    """

    def __init__(
        self, read: Callable[[int, int], NDArray[np.uint8]], n_bytes: int, name: str
    ) -> None:
        self._read, self._name = read, name
        self.layout = self._parse_layout(n_bytes)
        entries = read(
            self.layout.header_bytes - CHUNK_ENTRY_BYTES * self.layout.n_chunks,
            self.layout.header_bytes,
        )
        self._entries = np.frombuffer(entries.tobytes(), "<u4")
        self._check_lengths()
        self._offsets = self.layout.header_bytes + np.concatenate(
            [[0], np.cumsum(self._entries & ~np.uint32(_FIXED_WIDTH_FLAG), dtype=np.int64)]
        )
        end = int(self._offsets[-1])
        if end + -end % ALIGNMENT != n_bytes:
            self._fail(f"its chunks end at byte {end} of {n_bytes}")
        if read(end, n_bytes).any():
            self._fail("its padding is not zero")

    def _fail(self, what: str) -> None:
        raise FormatError(f"{self._name}: not a valid packed tensor: {what}")

    def _check_lengths(self) -> None:
        """Check that each chunk is as long as its coding needs.

        So a few bytes cannot claim many weights.
        """
        layout = self.layout
        fixed = (self._entries & _FIXED_WIDTH_FLAG).astype(bool)
        lengths = (self._entries & ~np.uint32(_FIXED_WIDTH_FLAG)).astype(np.int64)
        spans = [layout.span(chunk) for chunk in (0, layout.chunks_a_matrix - 1)]
        full, last = (fixed_width_bytes(stop - start, layout.k) for _, start, stop in spans)
        expected = np.full((layout.n_matrices, layout.chunks_a_matrix), full)
        expected[:, -1] = last
        least = rans_head_bytes(layout.k)
        bad = np.where(fixed, lengths != expected.reshape(-1), lengths < least)
        if bad.any():
            chunk = int(np.argmax(bad))
            self._fail(f"chunk {chunk} of {layout.n_chunks} has {lengths[chunk]} bytes")

    def _parse_layout(self, n_bytes: int) -> PackedLayout:
        """Read the header, each part checked before the next is read."""
        if n_bytes < _FIXED.size:
            self._fail(f"{n_bytes} bytes are too few for a header")
        magic, version, code, n_axes, zero, k, zero2, n_matrices, chunk_weights = _FIXED.unpack(
            self._read(0, _FIXED.size).tobytes()
        )
        if magic != _MAGIC or version != _LAYOUT or zero or zero2:
            self._fail(
                f"it begins with {magic!r}, layout {version}; expected {_MAGIC!r}, {_LAYOUT}"
            )
        if code not in _FORMATS or not 1 <= n_axes <= MAX_AXES or not 1 <= k <= 256:
            self._fail(f"format {code}, {n_axes} axes, k = {k}")
        if not 1 <= chunk_weights <= _MAX_CHUNK_WEIGHTS or n_bytes < _FIXED.size + 8 * n_axes:
            self._fail(f"{n_bytes} bytes, chunks of {chunk_weights} weights")
        axes = self._read(_FIXED.size, _FIXED.size + 8 * n_axes).tobytes()
        shape = tuple(int(axis) for axis in np.frombuffer(axes, "<u8"))
        n_weights = math.prod(shape)
        if not 1 <= n_weights <= _MAX_CHUNK_WEIGHTS * n_bytes or n_matrices not in (1, shape[0]):
            self._fail(f"shape {shape} of {n_matrices} matrices in {n_bytes} bytes")
        layout = PackedLayout(shape, _FORMATS[code], k, n_matrices, chunk_weights)
        if layout.header_bytes > n_bytes:
            self._fail(f"{layout.n_chunks} chunks in {n_bytes} bytes")
        return layout

    def decode(self, chunk: int, scratch: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Decode the ranks of one chunk.

        Parameters
        ----------
        chunk : int
            The index of the chunk in the tensor.
        scratch : uint8 array, `[chunk_weights]` or longer, optional
            Memory for the ranks, to be used again from chunk to chunk.

        Returns
        -------
        uint8 array, `[n]`
            Ranks, each below k.

        Raises
        ------
        FormatError
            If isotone cannot have written the bytes.
        """
        _, start, stop = self.layout.span(chunk)
        k = self.layout.k
        ranks = np.empty(stop - start, np.uint8) if scratch is None else scratch[: stop - start]
        coded = self._read(int(self._offsets[chunk]), int(self._offsets[chunk + 1]))
        if self._entries[chunk] & _FIXED_WIDTH_FLAG:
            _native.unpack(coded, rank_bits(k), ranks)
            used_bits = len(ranks) * rank_bits(k) % 8
            if used_bits and coded[-1] >> used_bits:
                self._fail(f"chunk {chunk} has bits behind its last rank")
        elif not _native.rans_decode(coded, max(k, 2), ranks):
            self._fail(f"chunk {chunk} does not decode")
        if k < 256 and ranks.max() >= k:
            self._fail(f"chunk {chunk} holds rank {ranks.max()} of {k}")
        return ranks

    def spans(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield the index of each chunk and its `span`, in order."""
        for chunk in range(self.layout.n_chunks):
            yield (chunk, *self.layout.span(chunk))
