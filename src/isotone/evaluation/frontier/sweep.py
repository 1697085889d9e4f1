"""Sweep sizes and methods of compression over one model: what quality costs, in measured bits.

Each variant is compressed to files, loaded from them as a user would, judged beside the dense model
on the same windows, and deleted; what stays is one line (see results.py). The dense model is loaded
once, and is in memory together with one variant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from isotone.checkpoint.source.model_directory import ModelDirectory
from isotone.checkpoint.staging.staging import refuse_inside
from isotone.core.cluster import check_k
from isotone.engine.local import LocalEngine
from isotone.engine.progress import Progress, Silent
from isotone.engine.tasks import Engine, Needs
from isotone.engine.threads import worker_count
from isotone.errors import InputError
from isotone.evaluation.frontier.baselines import check_comparable
from isotone.evaluation.frontier.bench import DENSE, Bench, Variant
from isotone.evaluation.frontier.results import Point, Protocol, Results
from isotone.evaluation.provenance import model_hash, text_hash
from isotone.models.language_model.checks import check_context, check_tokens
from isotone.models.language_model.files import open_files
from isotone.models.text import Tokens, cut_windows, encode, read_text
from isotone.plan.options import check_bits

BITS = (2.6, 3.1, 3.6, 4.1, 5.0)
K = (16, 32, 64)

CALIBRATED, ENTROPY = "isotone, calibrated", "isotone, entropy"
KMEANS, PLAIN = "isotone, k-means", "k-means, plain"


def variants(
    bits: Sequence[float] = BITS, k: Sequence[int] = K, calibrate: str | None = None
) -> list[Variant]:
    """What a sweep goes through: sizes in bits, numbers of centroids, and the latter plainly.

    Plain is k-means alone, without protection and scales, as in arXiv 2603.17917. calibrate: `self`
    or a text file, to go through the sizes once more with errors weighed by it; see compress.
    Raises InputError for a value that compress would not take.
    """
    for size in bits:
        check_bits(size)
    for number in k:
        check_k(number)
    sizes, numbers = dict.fromkeys(bits), dict.fromkeys(k)
    plain = {"protect": "off", "scale": "none"}
    calibrated = [] if calibrate is None else sizes
    return [
        *(
            Variant(CALIBRATED, f"{size:g} bits", {"bits": size, "calibrate": str(calibrate)})
            for size in calibrated
        ),
        *(Variant(ENTROPY, f"{size:g} bits", {"bits": size}) for size in sizes),
        *(Variant(KMEANS, f"K = {number}", {"k": number}) for number in numbers),
        *(Variant(PLAIN, f"K = {number}", {"k": number, **plain}) for number in numbers),
    ]


def sweep(
    model: str | Path,
    results: str | Path,
    text: str | Path,
    *,
    variants: Sequence[Variant],
    context: int = 1024,
    windows: int = 8,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    peers: Sequence[Mapping[str, Any]] = (),
    dtype: str = "float32",
    device: str = "cpu",
    workers: int | None = None,
    engine: Engine | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Point]:
    """Measure the dense model and every variant of it; return all points that `results` holds.

    model: a dense model directory or a hub id. text, context, windows, dtype, device: as evaluate
    takes them. include, exclude, workers: as compress takes them. engine: where to work, instead
    of on so many threads; then all its workers must see `model` and `results`. peers: points that
    will stand beside these; refused where they say that they were measured on something else.
    Points that `results` holds already are not measured again; overwrite drops them first.
    Raises InputError, FormatError and MissingExtraError, what can be known early before anything
    is measured. Cost: two forward passes for each variant and window; disk for one variant.
    """
    progress, results = progress or Silent(), Path(results).absolute()
    source, tokens, protocol = _subject(
        model,
        text,
        progress,
        context=context,
        windows=windows,
        dtype=dtype,
        include=tuple(include),
        exclude=tuple(exclude),
    )
    refuse_inside(results, source.directory)
    engine = engine or LocalEngine(n_threads=worker_count(workers))
    with Results.open(results, protocol, overwrite=overwrite) as kept:
        dense = next((point for point in kept.points if point.kind == "dense"), None)
        if dense is not None:
            check_comparable(peers, dense)
        todo = _sequences(variants, kept.points)
        if todo:
            progress.begin("measuring", sum(map(len, todo)), unit="models")
            bench = partial(
                Bench,
                scratch=kept.scratch,
                statistics=kept.statistics,
                device=device,
                n_threads=engine.n_threads,
            )
            needs = _needs(source, tokens, device)
            with engine.start(bench, (source, tokens, protocol), progress, needs) as team:
                for _, point in team.results(todo):
                    kept.append(point)
                    progress.advance(1)
                    if point.kind == "dense":
                        check_comparable(peers, point)
        kept.drop_scratch()
        kept.drop_statistics()
        return list(kept.points)


def _sequences(variants: Sequence[Variant], points: Sequence[Point]) -> list[list[Variant]]:
    """What is not measured yet: the dense model first, calibrated variants one after the other.

    The first of those collects the statistics of all.
    """
    done = [(point.family, point.arguments) for point in points]
    missing = [v for v in (DENSE, *variants) if (v.family, v.arguments) not in done]
    calibrated = [v for v in missing if "calibrate" in v.arguments]
    others = [[v] for v in missing if v not in calibrated]
    return [*others[:1], calibrated, *others[1:]] if calibrated else others


def _needs(source: ModelDirectory, tokens: Tokens, device: str) -> Needs:
    """What a worker takes: the dense model and a variant beside it, in float32 at most."""
    n_weights = sum(tensor.n_weights for tensor in source.tensors)
    vocabulary = source.config.get("vocab_size") or 0
    logits = 2 * 4 * tokens.shape[1] * vocabulary
    return Needs(memory_bytes=2 * 4 * n_weights + logits, gpus=float(device != "cpu"))


def _subject(
    model: str | Path,
    text: str | Path,
    progress: Progress,
    *,
    context: int,
    windows: int,
    dtype: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
) -> tuple[ModelDirectory, Tokens, Protocol]:
    """What is to be compressed, the windows [n, context] to judge on, and a record of both."""
    files = open_files(model)
    source = ModelDirectory(files.directory.absolute())
    if "quantization_config" in source.config:
        raise InputError(f"{model}: is compressed already; expected the dense model")
    check_context(files, context, f"context {context}")
    content = read_text(text)
    tokens = cut_windows(encode(files.tokenizer, content), context, windows, str(text))
    check_tokens(files, tokens)
    protocol = Protocol(
        model=files.directory.resolve().name if Path(model).is_dir() else str(model),
        model_hash=model_hash(source, progress),
        text=Path(text).name,
        text_hash=text_hash(content),
        context=context,
        windows=windows,
        dtype=dtype,
        include=include,
        exclude=exclude,
        isotone=version("isotone"),
    )
    return source, tokens, protocol
