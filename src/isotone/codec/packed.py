"""Assignments as bytes: chunks that decode by themselves, each in the smaller of two codings.

The layout is specified in docs/format.md. A chunk holds the ranks of a run of weights of one
matrix, either at a fixed width or as rANS with its own frequencies, so that parts of a tensor can
be decoded in parallel and by range, and rows whose ranks are spread differently are coded by what
they hold. Everything in a header is checked against the bytes that are there before anything is
allocated.
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
from isotone.errors import FormatError

CHUNK_WEIGHTS = 1 << 18
"""Weights a chunk when isotone writes; a reader takes what the header says."""

ALIGNMENT = 8
"""Packed bytes are padded to a multiple of this, so that arrays behind them stay aligned."""

MAX_AXES = 8
"""Axes that a header has room for."""

_MAGIC = b"ISOT"
_LAYOUT = 1
_FIXED = struct.Struct("<4sBBBBHHII")
_FORMAT_CODES = {FloatFormat.BF16: 0, FloatFormat.F16: 1, FloatFormat.F32: 2}
_FORMATS = {code: float_format for float_format, code in _FORMAT_CODES.items()}
_FIXED_WIDTH_FLAG = 1 << 31
_MAX_CHUNK_WEIGHTS = 1 << 20
RANS_STATE_BYTES = 128
"""What each chunk in rANS takes beside its words and its 2 bytes a symbol."""


@dataclass(frozen=True)
class PackedLayout:
    """What a packed tensor's header says, the lengths of its chunks aside.

    shape: the tensor's. k: centroids of a codebook, 1 to 256. n_matrices: 1 or shape[0].
    chunk_weights: weights a chunk; the last one of each matrix may be shorter.
    """

    shape: tuple[int, ...]
    float_format: FloatFormat
    k: int
    n_matrices: int
    chunk_weights: int = CHUNK_WEIGHTS

    @property
    def matrix_weights(self) -> int:
        """Weights of each matrix."""
        return math.prod(self.shape) // self.n_matrices

    @property
    def chunks_a_matrix(self) -> int:
        """Chunks of each matrix; chunks never cross from one into the next."""
        return -(-self.matrix_weights // self.chunk_weights)

    @property
    def n_chunks(self) -> int:
        """Chunks in all."""
        return self.n_matrices * self.chunks_a_matrix

    @property
    def header_bytes(self) -> int:
        """Bytes before the first chunk; known before anything is coded."""
        return _FIXED.size + 8 * len(self.shape) + 4 * self.n_chunks

    def span(self, chunk: int) -> tuple[int, int, int]:
        """Where a chunk lies: its matrix, and first and last+1 position in that matrix."""
        matrix, i = divmod(chunk, self.chunks_a_matrix)
        start = i * self.chunk_weights
        return matrix, start, min(start + self.chunk_weights, self.matrix_weights)

    def header(self, lengths: list[int]) -> bytes:
        """The header, given each chunk's entry as `encode_chunk` returned it."""
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
    """Code a chunk of ranks below k: its bytes, and its entry for the header."""
    out = np.empty(_fixed_width_bytes(len(ranks), k), np.uint8)
    n_bytes = _native.rans_encode(ranks, max(k, 2), out)
    if n_bytes:
        return out[:n_bytes], n_bytes
    _native.pack(ranks, rank_bits(k), out)
    return out, len(out) | _FIXED_WIDTH_FLAG


def rank_bits(k: int) -> int:
    """Bits of a fixed-width rank."""
    return max(1, (k - 1).bit_length())


def _fixed_width_bytes(n_weights: int, k: int) -> int:
    return (n_weights * rank_bits(k) + 7) // 8


class PackedReader:
    """Reads a packed tensor, or any of its chunks, from wherever its bytes are."""

    def __init__(
        self, read: Callable[[int, int], NDArray[np.uint8]], n_bytes: int, name: str
    ) -> None:
        """Read and check the header.

        read: gives the bytes from one offset to another. n_bytes: how many there are.
        name: for messages. Raises FormatError where header and size do not agree.
        """
        self._read, self._name = read, name
        self.layout = self._parse_layout(n_bytes)
        entries = read(
            self.layout.header_bytes - 4 * self.layout.n_chunks, self.layout.header_bytes
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
        """Each chunk as long as its coding needs, so that a few bytes cannot claim many weights."""
        layout = self.layout
        fixed = (self._entries & _FIXED_WIDTH_FLAG).astype(bool)
        lengths = (self._entries & ~np.uint32(_FIXED_WIDTH_FLAG)).astype(np.int64)
        spans = [layout.span(chunk) for chunk in (0, layout.chunks_a_matrix - 1)]
        full, last = (_fixed_width_bytes(stop - start, layout.k) for _, start, stop in spans)
        expected = np.full((layout.n_matrices, layout.chunks_a_matrix), full)
        expected[:, -1] = last
        least = 2 * max(layout.k, 2) + RANS_STATE_BYTES
        bad = np.where(fixed, lengths != expected.reshape(-1), lengths < least)
        if bad.any():
            chunk = int(np.argmax(bad))
            self._fail(f"chunk {chunk} of {layout.n_chunks} has {lengths[chunk]} bytes")

    def _parse_layout(self, n_bytes: int) -> PackedLayout:
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
        """The ranks of one chunk, each below k.

        scratch: memory for them, of `chunk_weights` or more, used again from chunk to chunk.
        Raises FormatError for bytes that isotone cannot have written.
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
        """Each chunk with its `span`, in order."""
        for chunk in range(self.layout.n_chunks):
            yield (chunk, *self.layout.span(chunk))
