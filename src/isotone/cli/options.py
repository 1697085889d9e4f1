"""The arguments and options that several commands share, each defined once.

A command's signature takes them as types, so that it reads as one line for each option. An option
that only one command has is defined in that command's file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# Arguments

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A dense or clustered model directory, or a hub id (org/name)."
    ),
]
DenseModel = Annotated[
    str, typer.Argument(metavar="MODEL", help="A dense model directory, or a hub id (org/name).")
]
Directory = Annotated[
    str, typer.Argument(metavar="DIR", help="A directory that isotone compress or heal wrote.")
]
Out = Annotated[str, typer.Argument(metavar="OUT", help="The directory to write.")]
OutPath = Annotated[Path, typer.Argument(metavar="OUT", help="The directory to write.")]

# Which tensors

Include = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB", help="Take only the tensors whose name matches GLOB; may be repeated."
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB", help="Leave out the tensors whose name matches GLOB; may be repeated."
    ),
]

# Text, and how a model runs on it

Text = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="A UTF-8 text to measure on, or 'builtin' for the text that Python ships.",
    ),
]
Context = Annotated[int, typer.Option(metavar="N", help="Length of a window, in tokens.")]
Windows = Annotated[
    int, typer.Option(metavar="N", help="Number of windows, taken from the start of the text.")
]
Bos = Annotated[
    str,
    typer.Option(
        metavar="auto|yes|no",
        help="Begin every window with a beginning-of-sequence token: as the tokenizer does (auto), "
        "in any case (yes), or never (no).",
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Number format to compute in: float32, bfloat16, float16, or auto for the file's own.",
    ),
]
Device = Annotated[
    str, typer.Option(metavar="NAME", help="Device to compute on, as torch names it: cpu, cuda.")
]

# Where the work is done

Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Number of threads, or of workers on a cluster; by default as many as fit.",
    ),
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="local|ray",
        help="Where to work: on this machine, or on a Ray cluster.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Address of the Ray cluster; by default RAY_ADDRESS, or else a cluster that runs or "
        "is started on this machine.",
    ),
]
Cores = Annotated[
    int | None,
    typer.Option(metavar="N", help="Cores of each worker on a Ray cluster; 1 by default.", min=1),
]

# What is written and printed

Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace OUT if isotone wrote it, and drop an unfinished OUT.partial."
    ),
]
Title = Annotated[str | None, typer.Option(metavar="TEXT", help="Title of the page or the chart.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")
]
