"""`isotone eval`: measure the quality of a model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isotone.cli.console import hide_foreign_bars, print_json, progress_bar, say, stdout
from isotone.cli.options import Bos, Context, Device, Dtype, Json, Model, Windows
from isotone.cli.tables import pairs_table
from isotone.models.prefix import shown

if TYPE_CHECKING:
    from isotone.evaluation.run import Evaluation

# isotone.evaluation imports torch, which takes seconds, so the command imports it when it runs.

OptionalText = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="A UTF-8 text for the perplexity, or 'builtin' for the text that Python ships.",
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="Also compare the predictions with those of this model."),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TASKS",
        help="Tasks of lm-eval, or .jsonl files with query, choices and gold; separated by commas.",
    ),
]


def evaluate(
    model: Model,
    text: OptionalText = None,
    context: Context = 1024,
    windows: Windows = 8,
    reference: Reference = None,
    tasks: Tasks = None,
    bos: Bos = "auto",
    dtype: Dtype = "float32",
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Measure the quality of MODEL.

    Perplexity is measured on a text, divergence from a reference model, and scores on tasks.
    """
    hide_foreign_bars()
    from isotone.evaluation.run import evaluate as run_evaluate

    names = [name.strip() for item in tasks or () for name in item.split(",") if name.strip()]
    with progress_bar() as progress:
        result = run_evaluate(
            model,
            text,
            context=context,
            windows=windows,
            reference=reference,
            tasks=names,
            bos=bos,
            dtype=dtype,
            device=device,
            progress=progress,
        )
    if json:
        print_json(_without_nan(asdict(result)))
    else:
        say(Path(result.model).name or result.model)
        stdout.print(pairs_table(dict(_rows(result))))


def _without_nan(content: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN and infinity, which JSON lacks, by null, as for figures not measured."""
    return {
        key: _without_nan(value) if isinstance(value, dict) else _finite(value)
        for key, value in content.items()
    }


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rows(result: Evaluation) -> Iterator[tuple[str, str]]:
    if result.text is not None:
        yield from _text_rows(result)
    if result.text is not None and result.reference is not None:
        yield from _reference_rows(result)
    for task, metrics in result.tasks.items():
        for name, score in metrics.items():
            error = metrics.get(f"{name}_stderr")
            if not name.endswith("_stderr") and name != "n" and score is not None:
                shown = f"{score:.4f}" if error is None else f"{score:.4f} ± {error:.4f}"
                yield f"{task} {name}", shown
    yield "time", f"{result.seconds:.1f} s"


def _text_rows(result: Evaluation) -> Iterator[tuple[str, str]]:
    asked = result.n_windows_asked
    of = "" if result.n_windows == asked else f" (of {asked} asked: the text ends before)"
    yield "windows", f"{result.n_windows} × {result.context} tokens{of}"
    yield "windows begin with", shown(result.bos or ())
    yield "perplexity", _shown(result, "perplexity", "{:,.3f}")


def _reference_rows(result: Evaluation) -> Iterator[tuple[str, str]]:
    yield "perplexity of the reference", _shown(result, "reference_perplexity", "{:,.3f}")
    yield "ratio of the two", _shown(result, "perplexity_ratio", "{:,.4f}")
    yield "KL divergence, mean", _shown(result, "kl", "{:.5f}")
    yield "KL divergence, median", f"{result.kl_median:.5f}"
    yield "KL divergence, 99th percentile", f"{result.kl_99:.5f}"
    yield "same top token", _shown(result, "top1_agreement", "{:.2%}")
    yield "flipped predictions", _shown(result, "flipped", "{:.2%}")
    yield "  right before, wrong now", _shown(result, "lost", "{:.2%}")
    yield "  wrong before, right now", _shown(result, "gained", "{:.2%}")


def _shown(result: Evaluation, name: str, pattern: str) -> str:
    value, error = getattr(result, name), getattr(result, f"{name}_standard_error")
    return f"{pattern.format(value)} ± {pattern.format(error)}"
