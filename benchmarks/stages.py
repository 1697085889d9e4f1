"""Measure where the time goes: each stage of compressing and restoring by itself, on one core.

The stages are the library's own functions. They run one after the other over some matrices of a
model, piece by piece as in the pipeline, so that a stage finds its input in the caches as it does
there. Reading finds its file in the page cache, and writing ends there: the disk has no part in
this. Fitting consists of counting, which first balances rows and columns that get scales, and
solving; these parts are run once more by themselves.
"""

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from blake3 import blake3

from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.source import Source
from isotone.codec.packed import CHUNK_WEIGHTS, PackedLayout, PackedReader, encode_chunk
from isotone.core.clustering.outliers import Protection
from isotone.core.counting import refine
from isotone.core.fit import Fit, fit
from isotone.core.float_format import FloatFormat
from isotone.core.matrix import summarise_matrix
from isotone.core.scales.balancing import ScaleRule, choose_scales
from isotone.models.open_source import open_source
from isotone.pipeline.allocate.planned_matrix import PIECE_WEIGHTS, PlannedMatrix
from isotone.plan.settings import MatrixSettings
from isotone.plan.tensors import Clustered, n_matrices, reason_to_keep
from measuring.tables import print_table, write_results

COMPRESSING = (
    "read",
    "fit",
    "read again",
    "assign",
    "restore",
    "encode",
    "hash source",
    "hash restored",
    "write",
)
PARTS = ("of fit: count", "of count: balance", "of fit: solve")
RESTORING = ("decode", "restore", "hash restored")


def stage_seconds(
    source: Source,
    tensors: list[TensorInfo],
    k: int,
    protect: str = "auto",
    scale: str = "auto",
) -> dict[str, float]:
    """Seconds of each stage, in sum over the tensors; holds one of them in memory."""
    clock = _Clock()
    settings = MatrixSettings(k, Protection.parse(protect), ScaleRule.parse(scale))
    with tempfile.TemporaryFile() as out:
        for tensor in tensors:
            plan = Clustered(tensor, settings, 1)
            found = _fit(source, plan, clock)
            for start, stop in _spans(tensor.n_weights, PIECE_WEIGHTS):
                _code(source, plan, (start, stop), found, out.fileno(), clock)
    return dict(clock.seconds)


def matrices(source: Source, glob: str) -> list[TensorInfo]:
    """The tensors that a glob matches and that isotone clusters as one matrix each."""
    return [
        tensor
        for tensor in source.tensors
        if fnmatchcase(tensor.name, glob)
        and reason_to_keep(tensor) is None
        and n_matrices(tensor) == 1
    ]


def print_stages(title: str, seconds: dict[str, float], n_weights: int) -> None:
    """Print the stages of both directions, in nanoseconds a weight."""
    for what, stages in (("compressing", COMPRESSING), ("restoring", RESTORING)):
        total = sum(seconds[stage] for stage in stages)
        rows = [(stage, seconds[stage]) for stage in stages] + [("sum", total)]
        if stages is COMPRESSING:
            rows += [(part, seconds[part]) for part in PARTS]
        print_table(
            f"{what}, {title}",
            ("stage, one core", "seconds", "ns a weight", "share"),
            [
                (name, f"{s:.3f}", f"{1e9 * s / n_weights:.3f}", f"{s / total:.1%}")
                for name, s in rows
            ],
        )


class _Clock:
    """Adds up this thread's seconds on a core, so that other programs count for little."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.thread_time()
        yield
        self.seconds[stage] += time.thread_time() - started


def _fit(source: Source, plan: Clustered, clock: _Clock) -> Fit:
    planned, settings = PlannedMatrix(plan, 0), plan.settings
    for _ in planned.read_from(source).rows():  # into the page cache
        pass
    with clock("read"):
        read = planned.read_from(source)
        pieces = tuple(read.rows())
    matrix = replace(read, rows=lambda: pieces)
    with clock("of count: balance"):
        choose_scales(matrix.rows, matrix.shape, matrix.float_format, settings.scale)
    with clock("of fit: count"):
        histogram = summarise_matrix(matrix, settings.scale).histogram
    with clock("of fit: solve"):
        settings.method.assign(
            histogram,
            matrix.rate,
            split=lambda histogram, at: refine(histogram, matrix.rows, at),
        )
    with clock("fit"):
        found = fit(matrix, settings.scale, settings.method)
    return found


def _code(
    source: Source,
    plan: Clustered,
    span: tuple[int, int],
    found: Fit,
    out: int,
    clock: _Clock,
) -> None:
    float_format, k = FloatFormat(plan.tensor.dtype), len(found.codebook)
    with clock("read again"):
        dense = source.read(plan.tensor, *span)
    bits = dense.view(float_format.bits_dtype)
    with clock("assign"):
        ranks = np.empty(len(bits), np.uint8)
        positions = found.assign(bits, span[0], float_format, ranks)
    with clock("restore"):
        restored = np.empty_like(bits)
        protected = positions + span[0], bits[positions]
        values = found.values(plan.matrix_shape, float_format, *protected)
        values.decode(ranks, restored, start=span[0])
    with clock("encode"):
        coded = [encode_chunk(ranks[i:j], k) for i, j in _spans(len(ranks), CHUNK_WEIGHTS)]
    with clock("hash source"):
        blake3(dense)
    with clock("hash restored"):
        blake3(restored.view(np.uint8))
    with clock("write"):
        os.writev(out, [data for data, _ in coded])
    layout = PackedLayout((len(ranks),), float_format, k, 1)
    packed = layout.header([entry for _, entry in coded]) + b"".join(d.tobytes() for d, _ in coded)
    array = np.frombuffer(packed + bytes(-len(packed) % 8), np.uint8)
    reader = PackedReader(lambda start, stop: array[start:stop], len(array), plan.tensor.name)
    with clock("decode"):
        for chunk in range(layout.n_chunks):
            reader.decode(chunk)


def _spans(n_weights: int, step: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n_weights, step):
        yield start, min(start + step, n_weights)


def main() -> None:
    """Time the stages over some matrices of a model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--k", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--protect", default="auto")
    parser.add_argument("--scale", default="auto")
    parser.add_argument("--tensors", default="*", metavar="GLOB")
    given = parser.parse_args()
    source = open_source(given.model)
    tensors = matrices(source, given.tensors)
    n_weights = sum(tensor.n_weights for tensor in tensors)
    found = {}
    for k in given.k:
        found[f"k={k}"] = stage_seconds(source, tensors, k, given.protect, given.scale)
        print_stages(f"{len(tensors)} matrices, K = {k}", found[f"k={k}"], n_weights)
    write_results("stages", {"model": given.model.name, "n_weights": n_weights, "seconds": found})


if __name__ == "__main__":
    main()
