"""`isotone calibrate`: collect what flows through the matrices of a model."""

from __future__ import annotations

from typing import Annotated

import typer

from isotone.cli.console import hide_foreign_bars, print_json, progress_bar, say, size, warn
from isotone.cli.options import Bos, DenseModel, Exclude, Include, Json, OutPath
from isotone.cli.tables import whole_model_lines
from isotone.models.prefix import shown
from isotone.pipeline.calibrate import calibrate as run_calibrate

CalibrationText = Annotated[
    str,
    typer.Option(
        metavar="self|FILE",
        help="Text to run through the model: a UTF-8 FILE, or text that the model writes itself.",
    ),
]


def calibrate(
    model: DenseModel,
    out: OutPath,
    text: CalibrationText = "self",
    include: Include = None,
    exclude: Exclude = None,
    bos: Bos = "auto",
    json: Json = False,
) -> None:
    """Collect statistics of MODEL for `compress --calibrate OUT`.

    They serve any number of compressions.
    """
    hide_foreign_bars()
    with progress_bar() as progress:
        summary = run_calibrate(
            model,
            out,
            text=text,
            include=include or (),
            exclude=exclude or (),
            bos=bos,
            progress=progress,
        )
    for line in whole_model_lines(summary.whole_model):
        warn(line)
    if json:
        print_json(summary)
        return
    say(
        f"{out}: {summary.n_tokens:,} tokens, {size(summary.output_bytes)}, "
        f"{summary.seconds:.1f} s; windows begin with {shown(summary.bos)}"
    )
