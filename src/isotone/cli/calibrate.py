"""The command that collects what flows through a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isotone.cli.archive import Json
from isotone.cli.console import hide_foreign_bars, print_json, progress_bar, size, stderr, stdout
from isotone.cli.contents import whole_model_lines
from isotone.pipeline.calibrate import calibrate as run_calibrate


def calibrate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model directory, or a hub id.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The directory to write.")],
    text: Annotated[
        str, typer.Option(metavar="self|FILE", help="Text to run, by default the model's own.")
    ] = "self",
    include: Annotated[
        list[str] | None, typer.Option(help="Only tensors that match GLOB (repeatable).")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="No tensors that match GLOB (repeatable).")
    ] = None,
    json: Json = False,
) -> None:
    """Collect what flows through MODEL, for any number of `compress --calibrate OUT`."""
    hide_foreign_bars()
    with progress_bar() as progress:
        summary = run_calibrate(
            model,
            out,
            text=text,
            include=include or (),
            exclude=exclude or (),
            progress=progress,
        )
    for line in whole_model_lines(summary.whole_model):
        stderr.print(line)
    if json:
        print_json(summary)
    else:
        stdout.print(
            f"{out}: {summary.n_tokens:,} tokens, {size(summary.output_bytes)}, "
            f"{summary.seconds:.1f} s"
        )
