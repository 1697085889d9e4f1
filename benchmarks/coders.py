"""Measure coders of ranks: bits above the entropy, and speed on one core.

The ranks are those that isotone codes: matrices of SmolLM2 clustered with the defaults at K = 16,
and with values of lambda that take the whole model to 3.1, 3.6 and 4.1 bits a weight on disk. All
coders get them in isotone's chunks of 262,144 ranks, each coded by itself, so that any part can be
decoded alone. The size includes isotone's header of the tensor, with 4 bytes a chunk, and whatever
else a decoder needs. The entropy is the order-zero entropy of each whole matrix, so a coder whose
chunks adapt to their content can come in below it.

All coders code the same sample, every EVERY-th matrix; isotone's is also held against the entropy
of every matrix. Each round trip is checked. Times are seconds of this thread on its core, the
median of up to 5 runs; packages are called through Python, once a chunk, which adds nothing that
shows.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from baselines.rank_coders import RANS, Chunk, Coder, Ranks, coders, rans
from inputs.smollm2_dense import DEFAULT, smollm2_dense
from isotone.checkpoint.source.source import Source
from isotone.core.clustering.solver import MAX_K
from isotone.core.fit import fit
from isotone.engine.local import LocalEngine
from isotone.engine.progress import Silent
from isotone.models.open_source import open_source
from isotone.pipeline.allocate.importance import Importance, SharedLambda
from isotone.pipeline.allocate.planned_matrix import PlannedMatrix
from isotone.pipeline.allocate.rate_probe import rate_probe
from isotone.pipeline.allocate.rate_search import lambda_for
from isotone.plan.job import plan_job
from isotone.plan.settings import MatrixSettings, Selection
from isotone.plan.tensors import Clustered
from measuring.tables import print_table, write_results

CASES = {"K = 16": None, "3.1 bits": 3.1, "3.6 bits": 3.6, "4.1 bits": 4.1}
EVERY = 8  # not 7: a layer has 7 matrices, and the sample should hold some of each kind
LARGE = 100_000
EVERY_MATRIX = f"{RANS}, every matrix"
RUNS, PATIENCE_SECONDS = 5, 2.0
WAYS = ("encode_gb_s", "decode_gb_s")


def clustered(source: Source, plans: Sequence[Clustered]) -> Iterator[Ranks]:
    """Yield the ranks of each plan's matrix, one at a time."""
    for plan in plans:
        matrix = PlannedMatrix(plan, 0).read_from(source)
        found = fit(matrix, plan.settings.scale, plan.settings.method)
        bits = np.concatenate(list(matrix.rows()))
        ranks = np.empty(len(bits), np.uint8)
        found.assign(bits, 0, matrix.float_format, ranks)
        yield Ranks(plan.tensor.name, plan.layout_for(len(found.codebook)), ranks)


def plans_for(source: Source, bits: float | None) -> list[Clustered]:
    """Return the plans of all single matrices of a model: by `--bits`, or by the defaults."""
    settings = MatrixSettings() if bits is None else MatrixSettings(k=MAX_K)
    plans = plan_job(source, Selection(settings)).clustered
    single = [plan for plan in plans if plan.n_matrices == 1]
    if bits is not None:
        alike = Importance(heads=frozenset())
        with rate_probe(
            LocalEngine(n_threads=1), source, [tuple(single)], alike, Silent()
        ) as bits_at:
            lambda_ = lambda_for(bits, bits_at)
        single = [SharedLambda(lambda_, alike).apply(plan) for plan in single]
    return single


def checked(coder: Coder, matrix: Ranks) -> list[Chunk]:
    """Return a matrix coded; raise RuntimeError if other ranks come back."""
    chunks = [coder.encode(chunk, matrix.layout.k) for chunk in matrix.chunks]
    decode = coder.reader(chunks, matrix.layout)
    if not all(np.array_equal(decode(i), chunk) for i, chunk in enumerate(matrix.chunks)):
        raise RuntimeError(f"{coder.name} does not give back {matrix.name}")
    return chunks


def measured(coder: Coder, matrices: Sequence[Ranks]) -> dict[str, Any]:
    """Return the sizes and speeds of a coder over some matrices."""
    coded = [(matrix, checked(coder, matrix)) for matrix in matrices]
    encoding = [(chunk, matrix.layout.k) for matrix in matrices for chunk in matrix.chunks]
    readers = [(coder.reader(chunks, m.layout), range(len(chunks))) for m, chunks in coded]
    decoding = [(reader, i) for reader, chunks in readers for i in chunks]
    taken = seconds(coder.encode, encoding), seconds(lambda read, i: read(i), decoding)
    found = summary([matrix.size(chunks) for matrix, chunks in coded])
    speeds = [found["n_weights"] / each / 1e9 for each in taken]
    return found | dict(zip(WAYS, speeds, strict=True))


def seconds(run: Callable[..., object], calls: Sequence[tuple[object, ...]]) -> float:
    """Return the seconds of this thread on its core for all calls, the median of several runs."""
    found: list[float] = []
    while len(found) < RUNS and sum(found) < PATIENCE_SECONDS:
        started = time.thread_time()
        for call in calls:
            run(*call)
        found.append(time.thread_time() - started)
    return float(np.median(found))


def summary(sizes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return bits a weight and their distance from the entropy: of all, and of the worst matrix."""
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
    """Measure every coder on the sample, and isotone's on every matrix."""
    sizes, sample = [], []
    for i, matrix in enumerate(clustered(source, plans_for(source, bits))):
        sizes.append(matrix.size(checked(rans(), matrix)))
        sample += [matrix] if i % EVERY == EVERY // 2 else []
    found = {coder.name: measured(coder, sample) for coder in coders(sample)}
    return {EVERY_MATRIX: summary(sizes)} | found


def print_case(title: str, found: dict[str, dict[str, Any]]) -> None:
    """Print the table of one way of clustering."""
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
        from zstandard import ZSTD_VERSION

        packages["zstd"] = ".".join(map(str, ZSTD_VERSION))
        write_results("coders", {"coders": packages, "every": EVERY, "cases": found})


if __name__ == "__main__":
    main()
