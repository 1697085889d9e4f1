"""The command that trains: nothing but what each rank stands for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from isotone.cli.archive import Directory, Overwrite
from isotone.cli.console import hide_foreign_bars, print_json, progress_bar, size, stderr, stdout
from isotone.cli.judge import Device, Dtype, Json

if TYPE_CHECKING:
    from isotone.healing.run import Healing
    from isotone.healing.state import Look

# isotone.healing brings torch, which takes seconds: it is imported where the command runs.


def heal(
    directory: Directory,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The directory to write.")],
    text: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="A UTF-8 text to train on, 'builtin' for the one that Python ships, or 'self' for "
            "what the teacher writes.",
        ),
    ] = "self",
    teacher: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The dense model, whose predictions to match."),
    ] = None,
    held_out: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A text to judge by; else the end of the other one."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps at most.")] = 100,
    context: Annotated[int, typer.Option(help="Tokens in a window.")] = 512,
    batch: Annotated[int, typer.Option(help="Windows in a step, over all processes.")] = 1,
    learning_rate: Annotated[
        float, typer.Option(help="The highest, relative to each codebook's gaps.")
    ] = 0.05,
    train: Annotated[
        str, typer.Option(help="What to train: codebook, scale, norm, with commas between.")
    ] = "codebook",
    order: Annotated[
        str, typer.Option(help="keep, or free to see what happens without an order.")
    ] = "keep",
    evaluate_every: Annotated[
        int, typer.Option(help="Steps between looks at the held-out text.")
    ] = 20,
    patience: Annotated[
        int, typer.Option(help="Looks without a new best after which to stop; 0: never.")
    ] = 3,
    seed: Annotated[int, typer.Option(help="Of the windows' order, and of --text self.")] = 0,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory, one forward pass more.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Write everything; else codebooks that name DIR.")
    ] = False,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Train the codebooks of DIR into OUT, assignments unchanged; exit 1 where that is no gain."""
    hide_foreign_bars()
    from isotone.healing.run import heal as run_heal
    from isotone.healing.settings import Settings

    settings = Settings(steps, batch, learning_rate, evaluate_every, patience, seed)
    with progress_bar() as progress:
        result = run_heal(
            directory,
            out,
            text=text,
            teacher=teacher,
            held_out=held_out,
            train=[part.strip() for part in train.split(",") if part.strip()],
            order=order,
            settings=settings,
            context=context,
            dtype=dtype,
            device=device,
            gradient_checkpointing=gradient_checkpointing,
            full=full,
            overwrite=overwrite,
            listener=lambda look: _show(look, steps),
            progress=progress,
        )
    if result is None:
        return  # another process of this training prints
    if json:
        print_json(result)
    else:
        stdout.print(_table(str(out), result))
    if not result.improved:
        message = "healing made the held-out loss no lower, so nothing was written: give more text"
        stderr.print(f"isotone: {message}, a teacher, or a lower learning rate", soft_wrap=True)
        raise typer.Exit(1)


COMMANDS: dict[str, Callable[..., None]] = {"heal": heal}


def _show(look: Look, steps: int) -> None:
    """One line for each look, on stderr, for terminals and logs alike."""
    trained = "" if look.training_loss is None else f"  training loss {look.training_loss:.4f}"
    stderr.print(
        f"step {look.step:>4} of {steps}  held-out loss {look.loss:.4f}  "
        f"perplexity {look.perplexity:,.3f}{trained}  {look.seconds:,.0f} s",
        highlight=False,
        soft_wrap=True,
    )


def _table(title: str, result: Healing) -> Table:
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="dim")
    table.add_column(justify="right")
    rows = {
        "held-out perplexity before": f"{result.perplexity_before:,.3f}",
        "held-out perplexity after": f"{result.perplexity_after:,.3f}",
    }
    if result.teacher_perplexity is not None:
        rows["held-out perplexity of the teacher"] = f"{result.teacher_perplexity:,.3f}"
    if result.gap_closed is not None:
        rows["of the gap between, closed"] = f"{result.gap_closed:.1%}"
    rows["held-out loss"] = f"{result.loss_before:.4f} to {result.loss_after:.4f}"
    rows["numbers trained"] = f"{result.n_trained:,}"
    rows["steps"] = f"{result.steps}, the best {result.best_step}"
    crossings = result.crossings
    if crossings.pairs:
        rows["neighbours that free training crosses"] = (
            f"{crossings.crossed:,} of {crossings.pairs:,}, {crossings.ever:,} at some time"
        )
    if result.improved:
        rows["written"] = size(result.output_bytes)
    rows["time"] = f"{result.seconds:.1f} s, {result.training_seconds:.1f} s of it steps"
    for label, value in rows.items():
        table.add_row(label, value)
    return table
