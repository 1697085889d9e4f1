"""`isotone.frontier`: compress one model in many ways, and measure what quality costs in bits.

Each variant is compressed to files, loaded from them as a user would, compared with the dense model
on the same windows, and deleted; one line of results stays (see `results`). The dense model is
loaded once, and is in memory together with one variant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from isotone.checkpoint.source.model_directory import ModelDirectory
from isotone.checkpoint.staging.staging import refuse_inside
from isotone.engine.local import LocalEngine
from isotone.engine.progress import Progress, Silent
from isotone.engine.tasks import Engine, Needs
from isotone.engine.threads import worker_count
from isotone.errors import InputError
from isotone.evaluation.frontier.baselines import check_comparable
from isotone.evaluation.frontier.bench import Bench
from isotone.evaluation.frontier.results import FrontierPoint, FrontierProtocol, FrontierResults
from isotone.evaluation.frontier.variants import DENSE, FrontierVariant, frontier_variants
from isotone.evaluation.provenance import model_hash, text_hash
from isotone.models.language_model.checks import check_context, check_tokens
from isotone.models.language_model.files import open_files
from isotone.models.open_source import refuse_unfit
from isotone.models.prefix import AUTO, find_prefix
from isotone.models.text import Tokens, cut_windows, encode, read_text


@dataclass(frozen=True)
class _Subject:
    """The model to compress, the windows [n, context] to judge on, and a record of both."""

    source: ModelDirectory
    windows: Tokens
    protocol: FrontierProtocol


def frontier(
    model: str | Path,
    results: str | Path,
    text: str | Path,
    *,
    variants: Sequence[FrontierVariant] | None = None,
    context: int = 1024,
    windows: int = 8,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    baselines: Sequence[Mapping[str, Any]] = (),
    bos: str = AUTO,
    dtype: str = "float32",
    device: str = "cpu",
    workers: int | None = None,
    engine: Engine | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[FrontierPoint]:
    """Measure a dense model and compressions of it: quality over bits per weight.

    Parameters
    ----------
    model : str or Path
        A dense model directory, or a hub id.
    results : str or Path
        The directory of the points. Points that it holds already are not measured again.
    text : str or Path
        A UTF-8 file to judge on, or `builtin` for the text that Python ships.
    variants : sequence of FrontierVariant, optional
        The ways to compress; by default those of `isotone.frontier_variants`.
    context : int
        The number of tokens in a window, at least 2.
    windows : int
        The number of windows, taken from the start of the text; fewer where it ends before.
    include : sequence of str
        Globs of the tensors to cluster, as `isotone.compress` takes them.
    exclude : sequence of str
        Globs of the tensors to keep, likewise.
    baselines : sequence of mapping
        Points that will be shown beside these (see `baselines.read_points`); refused where they say
        that they were measured on something else.
    bos : str
        What every window begins with, those of calibration too: `auto`, `yes` or `no`, as
        `isotone.evaluate` takes it.
    dtype : str
        `float32`, `bfloat16`, `float16`, or `auto` for the dtype of the files.
    device : str
        Where models are run, as torch names it.
    workers : int, optional
        The number of threads that compress.
    engine : Engine, optional
        Where to work, instead of on so many threads. All its workers must see `model` and
        `results`.
    overwrite : bool
        Whether points that `results` holds are dropped first.
    progress : Progress, optional
        Is told which variant is measured.

    Returns
    -------
    list of FrontierPoint
        All points that `results` holds, the dense model first.

    Raises
    ------
    InputError
        If an input cannot work; what can be known early is checked before anything is measured.
    FormatError
        If the model's files are damaged.
    MissingExtraError
        If an extra that the engine needs is not installed.

    Notes
    -----
    The cost is two forward passes for each variant and window, and disk space for one variant.

    Examples
    --------
    >>> import isotone
    >>> points = isotone.frontier("dense", "results", text="test.txt")  # doctest: +SKIP
    >>> [(point.bits_per_weight, point.perplexity) for point in points]  # doctest: +SKIP
    """
    progress, results = progress or Silent(), Path(results).absolute()
    protocol: dict[str, Any] = {"context": context, "windows": windows, "dtype": dtype}
    protocol |= {"include": tuple(include), "exclude": tuple(exclude), "bos": bos}
    subject = _subject(model, text, progress, **protocol)
    refuse_inside(results, subject.source.directory)
    engine = engine or LocalEngine(n_threads=worker_count(workers))
    wanted = frontier_variants() if variants is None else variants
    with FrontierResults.open(results, subject.protocol, overwrite=overwrite) as kept:
        _check_baselines(baselines, kept.points)
        _measure(subject, wanted, kept, baselines, engine, device, progress)
        kept.drop_scratch()
        kept.drop_statistics()
        return list(kept.points)


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
    bos: str,
) -> _Subject:
    """Open the model and the text, check both, and describe them."""
    # A worker may have another working directory, so the paths of the files are absolute.
    files = open_files(Path(model).absolute() if Path(model).is_dir() else model)
    source = files.dense
    if source is None:
        raise InputError(f"{model}: is compressed already; expected the dense model")
    refuse_unfit(source, model)
    check_context(files, context, f"context {context}")
    content, prefix = read_text(text), find_prefix(files, bos)
    encoded = encode(files.tokenizer, content)
    tokens = cut_windows(encoded, context, windows, str(text), prefix.tokens)
    check_tokens(files, tokens)
    protocol = FrontierProtocol(
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
        bos=prefix.names,
    )
    return _Subject(source, tokens, protocol)


def _measure(
    subject: _Subject,
    variants: Sequence[FrontierVariant],
    kept: FrontierResults,
    baselines: Sequence[Mapping[str, Any]],
    engine: Engine,
    device: str,
    progress: Progress,
) -> None:
    """Measure what `kept` does not hold yet, and write each point as it comes."""
    missing = _sequences(variants, kept.points)
    if not missing:
        return
    progress.begin("measuring", sum(map(len, missing)), unit="models")
    bench = partial(
        Bench,
        scratch=kept.scratch,
        statistics=kept.statistics,
        device=device,
        n_threads=engine.n_threads,
    )
    arguments = (subject.source, subject.windows, subject.protocol)
    with engine.start(bench, arguments, progress, _needs(subject, device)) as team:
        for _, point in team.results(missing):
            kept.append(point)
            progress.advance(1)
            _check_baselines(baselines, [point])


def _check_baselines(
    baselines: Sequence[Mapping[str, Any]], points: Sequence[FrontierPoint]
) -> None:
    """Check baselines against the dense model, where it is among the points."""
    for point in points:
        if point.kind == "dense":
            check_comparable(baselines, point)


def _sequences(
    variants: Sequence[FrontierVariant], points: Sequence[FrontierPoint]
) -> list[list[FrontierVariant]]:
    """Return what is not measured yet, as sequences of which each is the work of one worker.

    The dense model comes first. Calibrated variants are one sequence, since the first of them
    collects the statistics of all.
    """
    done = [(point.family, point.arguments) for point in points]
    missing = [v for v in (DENSE, *variants) if (v.family, v.arguments) not in done]
    calibrated = [v for v in missing if "calibrate" in v.arguments]
    others = [[v] for v in missing if v not in calibrated]
    return [*others[:1], calibrated, *others[1:]] if calibrated else others


def _needs(subject: _Subject, device: str) -> Needs:
    """Return what a worker needs: the dense model and a variant beside it, in float32 at most."""
    n_weights = sum(tensor.n_weights for tensor in subject.source.tensors)
    vocabulary = subject.source.config.get("vocab_size") or 0
    logits = 2 * 4 * subject.windows.shape[1] * vocabulary
    return Needs(memory_bytes=2 * 4 * n_weights + logits, gpus=float(device != "cpu"))
