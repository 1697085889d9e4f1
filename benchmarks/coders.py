"""Coders of ranks: bits above the entropy, and speed on one core.

The ranks are what isotone codes: matrices of SmolLM2 clustered as the defaults do at K = 16, and
with prices that take the whole model to 3.1, 3.6 and 4.1 bits a weight on disk. All coders get them
in isotone's chunks of 262,144, each coded by itself, so that any part can be decoded alone; all pay
for isotone's header of the tensor, with its 4 bytes a chunk, and for whatever else their decoders
need. The entropy is that of order zero of each whole matrix, so a coder whose chunks follow what
they hold can come in below it.

All coders code the same sample, every EVERY-th matrix; isotone's is also held against the entropy
of every matrix. Each round trip is checked. Times are this thread's seconds on its core, the median
of up to 5 runs; packages are called through Python, once a chunk, which adds nothing that shows.

zstd looks for matches, of which ranks have none, and codes the rest by Huffman. "literals" keeps
the match finder out of the way: strategy fast, 7 bytes a match, a table of 64 entries. (Negative
levels do it by a target length, which turns Huffman off.) "nibbles": two ranks a byte, for 16 ranks
or fewer; decoding includes taking them apart. constriction's ANS has a Categorical model for each
chunk, stored in 2 bytes a rank.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray
from zstandard import STRATEGY_FAST, ZSTD_VERSION, ZstdCompressor, ZstdDecompressor
from zstandard import ZstdCompressionParameters as Parameters

from isotone import _native
from isotone.checkpoint.source.source import Source
from isotone.checkpoint.source.tied import find_tied
from isotone.codec import packed
from isotone.codec.packed import PackedLayout, PackedReader
from isotone.core.clustering.entropy import entropy_bits
from isotone.core.clustering.kmeans import MAX_K
from isotone.core.fit import fit
from isotone.engine.local import LocalEngine
from isotone.engine.progress import Silent
from isotone.models.open_source import open_source
from isotone.pipeline.allocate.importance import Damage
from isotone.pipeline.allocate.planned_matrix import PlannedMatrix
from isotone.pipeline.allocate.rate_search import SharedLambda, lambda_for, survey
from isotone.plan.tensors import Clustered, Selection, Settings, plan_tensors
from results import print_table, write_results
from smollm2_dense import DEFAULT, smollm2_dense

CASES = {"K = 16": None, "3.1 bits": 3.1, "3.6 bits": 3.6, "4.1 bits": 4.1}
EVERY = 8  # not 7: a layer has 7 matrices, and the sample should hold some of each kind
LARGE = 100_000
RANS = "isotone's rANS"
EVERY_MATRIX = f"{RANS}, every matrix"
RUNS, PATIENCE_SECONDS = 5, 2.0
WAYS = ("encode_gb_s", "decode_gb_s")

Bytes = NDArray[np.uint8]
Chunk = tuple[Bytes | bytes, int]
"""Coded ranks, and their entry in the header."""


@dataclass(frozen=True)
class Ranks:
    """A clustered matrix; ranks: [weights] uint8."""

    name: str
    layout: PackedLayout
    ranks: Bytes

    @property
    def chunks(self) -> list[Bytes]:
        """The ranks of each chunk."""
        spans = (self.layout.span(i) for i in range(self.layout.n_chunks))
        return [self.ranks[start:stop] for _, start, stop in spans]

    def size(self, chunks: Sequence[Chunk]) -> dict[str, Any]:
        """What it takes coded, all that a decoder needs included; bits are of all weights."""
        n_bytes = self.layout.header_bytes + sum(len(data) for data, _ in chunks)
        bits = 8 * (n_bytes + -n_bytes % packed.ALIGNMENT)
        entropy, n_weights = entropy_bits(np.bincount(self.ranks)), len(self.ranks)
        found = {"name": self.name, "n_weights": n_weights, "k": self.layout.k}
        above = (bits - entropy) / n_weights
        return found | {"entropy": entropy, "bits": bits, "above_entropy": above}


@dataclass(frozen=True)
class Coder:
    """encode: codes ranks below k. reader: decodes any chunk of a matrix, each over the last."""

    name: str
    encode: Callable[[Bytes, int], Chunk]
    reader: Callable[[Sequence[Chunk], PackedLayout], Callable[[int], Bytes]]


def rans() -> Coder:
    """isotone's, as its pipeline calls it."""

    def reader(chunks: Sequence[Chunk], layout: PackedLayout) -> Callable[[int], Bytes]:
        stored = layout.header([entry for _, entry in chunks])
        stored += b"".join(bytes(data) for data, _ in chunks)
        whole = np.frombuffer(stored + bytes(-len(stored) % packed.ALIGNMENT), np.uint8)
        opened = PackedReader(lambda start, stop: whole[start:stop], len(whole), RANS)
        return partial(opened.decode, scratch=np.empty(layout.chunk_weights, np.uint8))

    return Coder(RANS, packed.encode_chunk, reader)


def by_chunk(name: str, encode: Callable[..., Any], decode: Callable[..., Bytes]) -> Coder:
    """A coder of chunks: (ranks, k) to data, and (data, k, memory for the ranks) to ranks."""

    def reader(chunks: Sequence[Chunk], layout: PackedLayout) -> Callable[[int], Bytes]:
        scratch = np.empty(layout.chunk_weights, np.uint8)
        spans = [layout.span(i) for i in range(layout.n_chunks)]
        return lambda i: decode(chunks[i][0], layout.k, scratch[: spans[i][2] - spans[i][1]])

    return Coder(name, lambda ranks, k: (data := encode(ranks, k), len(data)), reader)


def pack(ranks: Bytes, k: int) -> Bytes:
    """Ranks below k at a fixed width, what rANS falls back to."""
    out = np.empty((len(ranks) * packed.rank_bits(k) + 7) // 8, np.uint8)
    _native.pack(ranks, packed.rank_bits(k), out)
    return out


def unpack(data: Bytes, k: int, out: Bytes) -> Bytes:
    """Ranks below k at a fixed width, written to out."""
    _native.unpack(data, packed.rank_bits(k), out)
    return out


def zstd(name: str, parameters: Parameters) -> Coder:
    """One frame for each chunk; decoded into new memory, zstandard's fastest way."""
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
    """32-bit words, probabilities in 2^-24, here given in 2^-16."""
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
    """Those that can code all of these."""
    level = partial(Parameters.from_level, source_size=packed.CHUNK_WEIGHTS)
    literals = Parameters(strategy=STRATEGY_FAST, window_log=18, hash_log=6, min_match=7)
    found = [rans(), by_chunk("fixed width", pack, unpack), constriction_ans()]
    found += [zstd("zstd literals", literals)]
    found += [zstd(f"zstd level {n}", level(n)) for n in (-5, -1, 1, 3, 9, 19)]
    few = max(matrix.layout.k for matrix in matrices) <= 16
    return found + ([zstd("zstd nibbles, level 1", level(1))] if few else [])


def clustered(source: Source, plans: Sequence[Clustered]) -> Iterator[Ranks]:
    """The ranks of each plan's matrix, one at a time."""
    for plan in plans:
        matrix = PlannedMatrix(plan, 0).read_from(source)
        found = fit(matrix, plan.settings.scale, plan.settings.method)
        bits = np.concatenate(list(matrix.rows()))
        ranks = np.empty(len(bits), np.uint8)
        found.assign(bits, 0, matrix.float_format, ranks)
        yield Ranks(plan.tensor.name, plan.layout_for(len(found.codebook)), ranks)


def plans_for(source: Source, bits: float | None) -> list[Clustered]:
    """The plans of a whole model's single matrices: as `--bits` makes them, or as the defaults."""
    settings = Settings() if bits is None else Settings(k=MAX_K)
    plans = plan_tensors(source, Selection(settings), find_tied(source))
    single = [plan for plan in plans if isinstance(plan, Clustered) and plan.n_matrices == 1]
    if bits is not None:
        alike = Damage(heads=frozenset())
        with survey(LocalEngine(n_threads=1), source, [tuple(single)], alike, Silent()) as bits_at:
            lambda_ = lambda_for(bits, bits_at)
        single = [SharedLambda(lambda_, alike).apply(plan) for plan in single]
    return single


def checked(coder: Coder, matrix: Ranks) -> list[Chunk]:
    """A matrix coded; raises RuntimeError where other ranks come back."""
    chunks = [coder.encode(chunk, matrix.layout.k) for chunk in matrix.chunks]
    decode = coder.reader(chunks, matrix.layout)
    if not all(np.array_equal(decode(i), chunk) for i, chunk in enumerate(matrix.chunks)):
        raise RuntimeError(f"{coder.name} does not give back {matrix.name}")
    return chunks


def measured(coder: Coder, matrices: Sequence[Ranks]) -> dict[str, Any]:
    """Sizes and speeds of a coder over some matrices."""
    coded = [(matrix, checked(coder, matrix)) for matrix in matrices]
    encoding = [(chunk, matrix.layout.k) for matrix in matrices for chunk in matrix.chunks]
    readers = [(coder.reader(chunks, m.layout), range(len(chunks))) for m, chunks in coded]
    decoding = [(reader, i) for reader, chunks in readers for i in chunks]
    taken = seconds(coder.encode, encoding), seconds(lambda read, i: read(i), decoding)
    found = summary([matrix.size(chunks) for matrix, chunks in coded])
    speeds = [found["n_weights"] / each / 1e9 for each in taken]
    return found | dict(zip(WAYS, speeds, strict=True))


def seconds(run: Callable[..., object], calls: Sequence[tuple[object, ...]]) -> float:
    """Of this thread on its core, so that other programs count for little; for all calls."""
    found: list[float] = []
    while len(found) < RUNS and sum(found) < PATIENCE_SECONDS:
        started = time.thread_time()
        for call in calls:
            run(*call)
        found.append(time.thread_time() - started)
    return float(np.median(found))


def summary(sizes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Bits a weight, and how far from the entropy: of all, and of the worst large matrix."""
    n_weights, ks = sum(size["n_weights"] for size in sizes), [size["k"] for size in sizes]
    bits, entropy = (sum(s[key] for s in sizes) / n_weights for key in ("bits", "entropy"))
    large = [size for size in sizes if size["n_weights"] > LARGE]
    return {
        "n_matrices": len(sizes),
        "n_weights": n_weights,
        "k": [min(ks), max(ks)],
        "entropy": entropy,
        "bits": bits,
        "above_entropy": bits - entropy,
        "worst": max(large, key=lambda size: size["above_entropy"]),
    }


def measure_case(source: Source, bits: float | None) -> dict[str, dict[str, Any]]:
    """Every coder on the sample; isotone's on every matrix."""
    sizes, sample = [], []
    for i, matrix in enumerate(clustered(source, plans_for(source, bits))):
        sizes.append(matrix.size(checked(rans(), matrix)))
        sample += [matrix] if i % EVERY == EVERY // 2 else []
    found = {coder.name: measured(coder, sample) for coder in coders(sample)}
    return {EVERY_MATRIX: summary(sizes)} | found


def print_case(title: str, found: dict[str, dict[str, Any]]) -> None:
    """Print what one way of clustering came to."""
    rows = []
    for name, of in found.items():
        sizes = [of["bits"], of["above_entropy"], of["worst"]["above_entropy"]]
        speeds = [f"{of[way] * by:.3f}" if way in of else "" for way in WAYS for by in (1, 2)]
        rows.append([name, *(f"{x:.4f}" for x in sizes), *speeds])
    every, sample = found[EVERY_MATRIX], found[RANS]
    print_table(
        f"{title}: {sample['n_matrices']} matrices, entropy {sample['entropy']:.4f} (all "
        f"{every['n_matrices']}: {every['entropy']:.4f}, ranks {every['k']}); GB/s on one core",
        ("", "bits", "above entropy", "worst", "encode", "as bf16", "decode", "as bf16"),
        rows,
    )


def main() -> None:
    """Measure every coder on each way of clustering."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=DEFAULT, help="made where it is not there")
    parser.add_argument("--case", choices=CASES, help="one only, to try the script")
    given = parser.parse_args()
    source = open_source(smollm2_dense(given.model))
    found = {}
    for case, bits in CASES.items():
        if given.case in (None, case):
            found[case] = measure_case(source, bits)
            print_case(case, found[case])
    if given.case is None:
        packages = {name: version(name) for name in ("zstandard", "constriction")}
        packages["zstd"] = ".".join(map(str, ZSTD_VERSION))
        write_results("coders", {"coders": packages, "every": EVERY, "cases": found})


if __name__ == "__main__":
    main()
