"""The commands that turn a model into a compressed directory, and look after it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.text import Text

from isotone.cli.console import hide_foreign_bars, print_json, progress_bar, size, stderr, stdout
from isotone.cli.contents import (
    fallback_lines,
    inspection_details,
    inspection_table,
    kept_lines,
    summary_table,
    tensor_details,
    tensor_tables,
)
from isotone.cli.engines import Address, Cores, EngineName, opened_engine
from isotone.cli.schedules import schedule_details, schedule_report
from isotone.errors import InputError
from isotone.pipeline.compress import compress as run_compress
from isotone.pipeline.decompress import decompress as run_decompress
from isotone.pipeline.inspect import inspect as run_inspect
from isotone.pipeline.inspect import inspect_tensor
from isotone.pipeline.schedule import NODE_BYTES_PER_SECOND, plan_schedule
from isotone.pipeline.summary import summarise
from isotone.pipeline.verify import verify as run_verify
from isotone.plan.options import selection_of

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Workers = Annotated[
    int | None, typer.Option(help="Threads, or workers of a cluster: by default as many as fit.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace OUT where isotone wrote it; drop OUT.partial.")
]
Directory = Annotated[str, typer.Argument(metavar="DIR", help="What isotone compress wrote.")]


def compress(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A model directory, .safetensors, .gguf, hub id (org/name), or URL (s3://...).",
        ),
    ],
    out: Annotated[str, typer.Argument(metavar="OUT", help="The directory to write.")],
    k: Annotated[
        int | None,
        typer.Option("--k", help="Shared values of each matrix, 2 to 256: 16 by default."),
    ] = None,
    bits: Annotated[
        float | None,
        typer.Option(metavar="B", help="Instead of K: bits on disk for each clustered weight."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="kmeans, or entropy (fewest bytes for the error; with --bits)."),
    ] = None,
    protect: Annotated[
        str, typer.Option(help="Weights to store exactly: auto, off, or a fraction of them.")
    ] = "auto",
    scale: Annotated[
        str, typer.Option(help="Factors of rows and columns: auto, none, row, both.")
    ] = "auto",
    include: Annotated[
        list[str] | None, typer.Option(help="Cluster only tensors that match GLOB (repeatable).")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Keep tensors that match GLOB (repeatable).")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="GLOB:k=64,scale=row for some tensors (repeatable)."),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="self|FILE|DIR",
            help="Weigh errors by what they do to the model, run on text of its own or of a FILE.",
        ),
    ] = None,
    workers: Workers = None,
    engine: EngineName = "local",
    address: Address = None,
    cores: Cores = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what would be done, and how long on --nodes; write nothing."
        ),
    ] = False,
    nodes: Annotated[
        int | None, typer.Option(help="To plan for, with --dry-run: 1 by default.")
    ] = None,
    node_rate: Annotated[
        float | None,
        typer.Option(help="GB/s that each reads and compresses, with --dry-run: 1 by default."),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Cluster the weight matrices of MODEL into OUT."""
    selected: dict[str, Any] = {
        "k": k,
        "protect": protect,
        "scale": scale,
        "method": method,
        "bits": bits,
        "include": include or (),
        "exclude": exclude or (),
        "settings": settings or (),
    }
    if dry_run:
        schedule = plan_schedule(
            model,
            selection_of(**selected)[0],
            1 if nodes is None else nodes,
            NODE_BYTES_PER_SECOND if node_rate is None else 1e9 * node_rate,
        )
        if json:
            print_json(schedule_details(schedule))
        else:
            for part in schedule_report(schedule):
                stdout.print(part, highlight=False, soft_wrap=True)
        return
    for option, value in (("--nodes", nodes), ("--node-rate", node_rate)):
        if value is not None:
            raise InputError(f"{option} is {value:g}, and is for planning; add --dry-run")
    if calibrate is not None:
        hide_foreign_bars()
    with (
        progress_bar() as progress,
        opened_engine(engine, address, cores, workers) as where,
    ):
        summary = run_compress(
            model,
            out,
            **selected,
            calibrate=calibrate,
            workers=workers,
            engine=where,
            overwrite=overwrite,
            progress=progress,
        )
    for line in fallback_lines(summary):
        stderr.print(line)
    if json:
        print_json(summary)
    else:
        stdout.print(summary_table(str(out), summary))


def inspect(
    directory: Directory,
    tensor: Annotated[
        str | None,
        typer.Option(help="One tensor: its protected weights, and how its centroids moved."),
    ] = None,
    top: Annotated[int, typer.Option(help="How many protected weights to show.", min=1)] = 20,
    json: Json = False,
) -> None:
    """Show what DIR holds, one row a tensor."""
    if tensor is not None:
        report = inspect_tensor(directory, tensor, n_protected=top)
        if json:
            print_json(tensor_details(report))
        else:
            for table in tensor_tables(report):
                stdout.print(table)
        return
    inspection = run_inspect(directory)
    summary = summarise(directory)
    if json:
        print_json(inspection_details(inspection) | asdict(summary))
    else:
        stdout.print(inspection_table(inspection))
        for line in kept_lines(inspection):
            stdout.print(line, highlight=False, soft_wrap=True, style="dim")
        stdout.print(summary_table(str(directory), summary))


def verify(
    directory: Directory,
    against: Annotated[
        str | None, typer.Option(help="The dense MODEL that DIR was made from.")
    ] = None,
    workers: Workers = None,
    engine: EngineName = "local",
    address: Address = None,
    cores: Cores = None,
    json: Json = False,
) -> None:
    """Decode everything in DIR and check every hash; exit 1 where one does not fit."""
    with (
        progress_bar() as progress,
        opened_engine(engine, address, cores, workers) as where,
    ):
        result = run_verify(
            directory, against=against, workers=workers, engine=where, progress=progress
        )
    if json:
        print_json({"ok": result.ok} | asdict(result))
    else:
        for failure in result.failures:
            line = Text.assemble(("failed", "red"), f" {failure}")
            stdout.print(line, highlight=False, soft_wrap=True)
        verdict = "whole" if result.ok else f"damaged: {len(result.failures)} checks failed"
        stdout.print(
            f"{directory} is {verdict} ({result.n_tensors} tensors, {result.n_files} files)",
            highlight=False,
            soft_wrap=True,
        )
    if not result.ok:
        raise typer.Exit(1)


def decompress(
    directory: Directory,
    out: Annotated[str, typer.Argument(metavar="OUT", help="The directory to write.")],
    workers: Workers = None,
    engine: EngineName = "local",
    address: Address = None,
    cores: Cores = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write the dense model that DIR stands for, as plain safetensors."""
    with (
        progress_bar() as progress,
        opened_engine(engine, address, cores, workers) as where,
    ):
        summary = run_decompress(
            directory,
            out,
            workers=workers,
            engine=where,
            overwrite=overwrite,
            progress=progress,
        )
    if json:
        print_json(summary)
    else:
        rate = summary.output_bytes / summary.seconds
        stdout.print(
            f"{out}: {summary.n_tensors} tensors, {size(summary.output_bytes)} in "
            f"{summary.seconds:.1f} s ({size(rate)}/s)",
            highlight=False,
            soft_wrap=True,
        )


COMMANDS = (compress, inspect, verify, decompress)
