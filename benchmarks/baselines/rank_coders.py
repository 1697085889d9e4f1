"""Coders of ranks: isotone's rANS, fixed width, and the general coders zstd and constriction.

zstd searches for matches, of which ranks have none, and codes the rest with Huffman codes.
"zstd literals" keeps the match finder out of the way: strategy fast, matches of at least 7 bytes, a
table of 64 entries. (Negative levels avoid matches by a target length, which also turns Huffman
coding off.) "zstd nibbles" packs two ranks into a byte, for at most 16 ranks; decoding includes
unpacking them. constriction's ANS uses a Categorical model for each chunk, stored in 2 bytes a
rank.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotone import _native
from isotone.codec import packed
from isotone.codec.packed import PackedLayout, PackedReader
from isotone.core.rate import entropy_bits, rank_bits

RANS = "isotone's rANS"

Bytes = NDArray[np.uint8]
Chunk = tuple[Bytes | bytes, int]
"""The coded ranks of a chunk, and their entry in the header."""


@dataclass(frozen=True)
class Ranks:
    """The ranks of a clustered matrix, `[weights]` uint8."""

    name: str
    layout: PackedLayout
    ranks: Bytes

    @property
    def chunks(self) -> list[Bytes]:
        """The ranks of each chunk."""
        spans = (self.layout.span(i) for i in range(self.layout.n_chunks))
        return [self.ranks[start:stop] for _, start, stop in spans]

    def size(self, chunks: Sequence[Chunk]) -> dict[str, Any]:
        """Return the size in bits of all weights, everything that a decoder needs included."""
        n_bytes = self.layout.header_bytes + sum(len(data) for data, _ in chunks)
        bits = 8 * (n_bytes + -n_bytes % packed.ALIGNMENT)
        entropy, n_weights = entropy_bits(np.bincount(self.ranks)), len(self.ranks)
        found = {"name": self.name, "n_weights": n_weights, "k": self.layout.k}
        above = (bits - entropy) / n_weights
        return found | {"entropy": entropy, "bits": bits, "above_entropy": above}


@dataclass(frozen=True)
class Coder:
    """A coder of ranks.

    encode: codes ranks below k. reader: returns a function that decodes any chunk of a matrix; each
    call overwrites the result of the call before.
    """

    name: str
    encode: Callable[[Bytes, int], Chunk]
    reader: Callable[[Sequence[Chunk], PackedLayout], Callable[[int], Bytes]]


def rans() -> Coder:
    """Return isotone's coder, called as its pipeline calls it."""

    def reader(chunks: Sequence[Chunk], layout: PackedLayout) -> Callable[[int], Bytes]:
        stored = layout.header([entry for _, entry in chunks])
        stored += b"".join(bytes(data) for data, _ in chunks)
        whole = np.frombuffer(stored + bytes(-len(stored) % packed.ALIGNMENT), np.uint8)
        opened = PackedReader(lambda start, stop: whole[start:stop], len(whole), RANS)
        return partial(opened.decode, scratch=np.empty(layout.chunk_weights, np.uint8))

    return Coder(RANS, packed.encode_chunk, reader)


def by_chunk(name: str, encode: Callable[..., Any], decode: Callable[..., Bytes]) -> Coder:
    """Return a coder from two functions of chunks.

    encode: (ranks, k) to data. decode: (data, k, memory for the ranks) to ranks.
    """

    def reader(chunks: Sequence[Chunk], layout: PackedLayout) -> Callable[[int], Bytes]:
        scratch = np.empty(layout.chunk_weights, np.uint8)
        spans = [layout.span(i) for i in range(layout.n_chunks)]
        return lambda i: decode(chunks[i][0], layout.k, scratch[: spans[i][2] - spans[i][1]])

    return Coder(name, lambda ranks, k: (data := encode(ranks, k), len(data)), reader)


def pack(ranks: Bytes, k: int) -> Bytes:
    """Pack ranks below k at a fixed width, which rANS falls back to."""
    out = np.empty((len(ranks) * rank_bits(k) + 7) // 8, np.uint8)
    _native.pack(ranks, rank_bits(k), out)
    return out


def unpack(data: Bytes, k: int, out: Bytes) -> Bytes:
    """Unpack ranks below k of a fixed width into out."""
    _native.unpack(data, rank_bits(k), out)
    return out


def zstd(name: str, parameters: object) -> Coder:
    """Return zstd with one frame a chunk, decoded into new memory (zstandard's fastest way)."""
    from zstandard import ZstdCompressor, ZstdDecompressor

    encode = ZstdCompressor(compression_params=parameters).compress
    decompress = ZstdDecompressor().decompress

    def decode(data: bytes, *_: object) -> Bytes:
        return np.frombuffer(decompress(data), np.uint8)

    if "nibbles" in name:
        return by_chunk(
            name, lambda x, _: encode(pack(x, 16)), lambda x, _, out: unpack(decode(x), 16, out)
        )
    return by_chunk(name, lambda x, _: encode(x), decode)


def constriction_ans() -> Coder:
    """Return constriction's ANS: 32-bit words, probabilities in 2^-24, here given in 2^-16."""
    import constriction

    ans, categorical = constriction.stream.stack.AnsCoder, constriction.stream.model.Categorical

    def encode(ranks: Bytes, k: int) -> bytes:
        counts, coder = np.bincount(ranks, minlength=k), ans()
        share = np.maximum(np.rint(counts * (65535 / len(ranks))), counts > 0).astype("<u2")
        model = categorical(share.astype(np.float32), perfect=False)
        coder.encode_reverse(ranks.astype(np.int32), model)
        return share.tobytes() + coder.get_compressed().tobytes()

    def decode(data: bytes, k: int, out: Bytes) -> Bytes:
        share, words = np.frombuffer(data, "<u2", k), np.frombuffer(data, "<u4", offset=2 * k)
        model = categorical(share.astype(np.float32), perfect=False)
        out[:] = ans(words).decode(model, len(out))
        return out

    return by_chunk("constriction's ANS", encode, decode)


def coders(matrices: Sequence[Ranks]) -> list[Coder]:
    """Return the coders that can code all of the given matrices."""
    from zstandard import STRATEGY_FAST
    from zstandard import ZstdCompressionParameters as Parameters

    level = partial(Parameters.from_level, source_size=packed.CHUNK_WEIGHTS)
    literals = Parameters(strategy=STRATEGY_FAST, window_log=18, hash_log=6, min_match=7)
    found = [rans(), by_chunk("fixed width", pack, unpack), constriction_ans()]
    found += [zstd("zstd literals", literals)]
    found += [zstd(f"zstd level {n}", level(n)) for n in (-5, -1, 1, 3, 9, 19)]
    few = max(matrix.layout.k for matrix in matrices) <= 16
    return found + ([zstd("zstd nibbles, level 1", level(1))] if few else [])
