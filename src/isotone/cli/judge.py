"""The commands that run a model: what it is worth, and what it says."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from isotone.cli.console import hide_foreign_bars, print_json, progress_bar, stdout

if TYPE_CHECKING:
    from isotone.evaluation.run import Evaluation

# isotone.evaluation brings torch, which takes seconds: it is imported where a command runs.

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A dense or clustered model directory, or a hub id."),
]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16, float16, or auto for the file's own.")]
Device = Annotated[str, typer.Option(help="Where to run, as torch names it: cpu, cuda.")]


def evaluate(
    model: Model,
    text: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A UTF-8 text for the perplexity, or 'builtin' for the one that Python ships.",
        ),
    ] = None,
    context: Annotated[int, typer.Option(help="Tokens in a window.")] = 1024,
    windows: Annotated[int, typer.Option(help="Windows from the start of the text.")] = 8,
    reference: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Also compare predictions with this model's."),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASKS",
            help="Tasks of lm-eval or .jsonl files with query, choices, gold; commas between.",
        ),
    ] = None,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Measure MODEL: perplexity on a text, divergence from a reference, tasks."""
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
            dtype=dtype,
            device=device,
            progress=progress,
        )
    if json:
        print_json(_without_nan(asdict(result)))
    else:
        stdout.print(_table(result))


def generate(
    model: Model,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The text to continue.")],
    chat: Annotated[
        bool, typer.Option("--chat", help="Answer PROMPT as a turn of a conversation.")
    ] = False,
    max_tokens: Annotated[int, typer.Option(help="New tokens at most.")] = 128,
    temperature: Annotated[
        float, typer.Option(help="0 takes the likeliest token each time; above, tokens are drawn.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Continue PROMPT with MODEL, printing the text as it comes."""
    hide_foreign_bars()
    from isotone.evaluation.generate import generate as run_generate

    result = run_generate(
        model,
        prompt,
        chat=chat,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        dtype=dtype,
        device=device,
        listener=None if json else _show,
    )
    if json:
        print_json(result)
    else:
        _show("\n")


COMMANDS: dict[str, Callable[..., None]] = {"eval": evaluate, "generate": generate}


def _show(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()


def _without_nan(content: dict[str, Any]) -> dict[str, Any]:
    """JSON has no nan and no infinity: null there, as where nothing was measured."""
    return {
        key: _without_nan(value) if isinstance(value, dict) else _finite(value)
        for key, value in content.items()
    }


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(result: Evaluation) -> Table:
    title = Path(result.model).name or result.model
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="dim")
    table.add_column(justify="right")
    if result.text is not None:
        for label, value in _text_rows(result):
            table.add_row(label, value)
    for task, metrics in result.tasks.items():
        for name, score in metrics.items():
            error = metrics.get(f"{name}_stderr")
            if not name.endswith("_stderr") and name != "n" and score is not None:
                shown = f"{score:.4f}" if error is None else f"{score:.4f} ± {error:.4f}"
                table.add_row(f"{task} {name}", shown)
    table.add_row("time", f"{result.seconds:.1f} s")
    return table


def _text_rows(result: Evaluation) -> list[tuple[str, str]]:
    asked = result.n_windows_asked
    of = "" if result.n_windows == asked else f" (of {asked} asked: the text ends before)"
    rows = [
        ("windows", f"{result.n_windows} × {result.context} tokens{of}"),
        ("perplexity", _shown(result, "perplexity", "{:,.3f}")),
    ]
    if result.reference is not None:
        rows += [
            ("perplexity of the reference", _shown(result, "reference_perplexity", "{:,.3f}")),
            ("ratio of the two", _shown(result, "perplexity_ratio", "{:,.4f}")),
            ("KL divergence, mean", _shown(result, "kl", "{:.5f}")),
            ("KL divergence, median", f"{result.kl_median:.5f}"),
            ("KL divergence, 99th percentile", f"{result.kl_99:.5f}"),
            ("same top token", _shown(result, "top1_agreement", "{:.2%}")),
            ("flipped predictions", _shown(result, "flipped", "{:.2%}")),
            ("  right before, wrong now", _shown(result, "lost", "{:.2%}")),
            ("  wrong before, right now", _shown(result, "gained", "{:.2%}")),
        ]
    return rows


def _shown(result: Evaluation, name: str, pattern: str) -> str:
    value, error = getattr(result, name), getattr(result, f"{name}_standard_error")
    return f"{pattern.format(value)} ± {pattern.format(error)}"
