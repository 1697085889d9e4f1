"""The commands that turn a model into a compressed directory, and look after it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from isotone.cli.console import print_json, progress_bar, size, stdout
from isotone.pipeline.compress import compress as run_compress
from isotone.pipeline.decompress import decompress as run_decompress
from isotone.pipeline.inspect import Inspection, TensorReport, inspect_tensor
from isotone.pipeline.inspect import inspect as run_inspect
from isotone.pipeline.summary import CompressSummary, summarise
from isotone.pipeline.verify import verify as run_verify

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Workers = Annotated[int | None, typer.Option(help="Threads; all cores by default.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace OUT where isotone wrote it; drop OUT.partial.")
]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="What isotone compress wrote.")]


def compress(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A model directory, .safetensors, .gguf, or a hub id (org/name)."
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The directory to write.")],
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
    workers: Workers = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Cluster the weight matrices of MODEL into OUT."""
    with progress_bar() as progress:
        summary = run_compress(
            model,
            out,
            k=k,
            protect=protect,
            scale=scale,
            method=method,
            bits=bits,
            include=include or (),
            exclude=exclude or (),
            settings=settings or (),
            workers=workers,
            overwrite=overwrite,
            progress=progress,
        )
    if json:
        print_json(summary)
    else:
        stdout.print(_summary_table(str(out), summary))


def inspect(
    directory: Directory,
    tensor: Annotated[
        str | None, typer.Option(help="One tensor, with its protected weights.")
    ] = None,
    top: Annotated[int, typer.Option(help="How many protected weights to show.", min=1)] = 20,
    json: Json = False,
) -> None:
    """Show what DIR holds, one row a tensor."""
    if tensor is not None:
        report = inspect_tensor(directory, tensor, n_protected=top)
        if json:
            print_json(_row(report) | {"protected": [asdict(w) for w in report.protected]})
        else:
            stdout.print(_tensor_table(report))
        return
    inspection = run_inspect(directory)
    summary = summarise(directory)
    if json:
        print_json(
            {
                "tensors": [_row(report) for report in inspection.clustered],
                "kept": [asdict(record) for record in inspection.kept],
            }
            | asdict(summary)
        )
    else:
        stdout.print(_inspection_table(inspection))
        for line in _kept_lines(inspection):
            stdout.print(line, highlight=False, soft_wrap=True, style="dim")
        stdout.print(_summary_table(str(directory), summary))


def verify(
    directory: Directory,
    against: Annotated[
        str | None, typer.Option(help="The dense MODEL that DIR was made from.")
    ] = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Decode everything in DIR and check every hash; exit 1 where one does not fit."""
    with progress_bar() as progress:
        result = run_verify(directory, against=against, workers=workers, progress=progress)
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
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The directory to write.")],
    workers: Workers = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write the dense model that DIR stands for, as plain safetensors."""
    with progress_bar() as progress:
        summary = run_decompress(
            directory, out, workers=workers, overwrite=overwrite, progress=progress
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


def _row(report: TensorReport) -> dict[str, Any]:
    record = report.record
    farthest = abs(report.protected[0].deviations) if report.protected else None
    return asdict(record) | {
        "bits_per_weight": record.bits_per_weight,
        "farthest_deviations": farthest,
    }


def _summary_table(title: str, summary: CompressSummary) -> Table:
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="dim")
    table.add_column(justify="right")
    ratio = summary.source_bytes / summary.output_bytes
    rows = {
        "matrices clustered": f"{summary.n_tensors:,}, {summary.n_kept:,} tensors kept as they are",
        "weights": f"{summary.n_weights:,}, {summary.coverage:.2%} of the model",
        "bits per weight": f"{summary.bits_per_weight:.3f}",
        "relative distortion": f"{summary.relative_distortion:.3e}",
        "protected weights": f"{summary.n_protected:,}",
        "size before": size(summary.source_bytes),
        "size after": f"{size(summary.output_bytes)}, {ratio:.2f} times smaller",
    }
    if summary.skipped:
        rows["left out"] = ", ".join(summary.skipped)
    if summary.seconds:
        rate = summary.source_bytes / summary.seconds
        rows["time"] = f"{summary.seconds:.1f} s, {size(rate)}/s"
        rows["peak memory"] = size(summary.peak_rss_bytes)
    for label, value in rows.items():
        table.add_row(label, value)
    return table


def _inspection_table(inspection: Inspection) -> Table:
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("tensor", overflow="fold", min_width=20)
    for column in ("shape", "K", "bits", "error", "protected", "farthest"):
        table.add_column(column, justify="right", no_wrap=True)
    for report in inspection.clustered:
        record = report.record
        farthest = f"{abs(report.protected[0].deviations):.1f} σ" if report.protected else ""
        table.add_row(
            record.name,
            "×".join(map(str, record.shape)),
            str(record.k),
            f"{record.bits_per_weight:.3f}",
            f"{record.relative_distortion:.2e}",
            f"{record.n_protected:,}",
            farthest,
        )
    return table


def _kept_lines(inspection: Inspection) -> list[str]:
    """What was kept as it is, by reason, with a few names of each; `--json` has them all."""
    names: dict[str, list[str]] = {}
    for kept in inspection.kept:
        reason = f"tied to {kept.tied_to}" if kept.tied_to else f"kept as it is, {kept.reason}"
        names.setdefault(reason, []).append(kept.name)
    return [
        f"{reason}: {', '.join(found[:3])}" + (f", and {len(found) - 3} more" * (len(found) > 3))
        for reason, found in names.items()
    ]


def _tensor_table(report: TensorReport) -> Table:
    record = report.record
    table = Table(
        title=f"{record.name}: {record.n_protected:,} of {record.n_weights:,} weights protected, "
        f"σ = {record.standard_deviation:.4g}",
        title_justify="left",
    )
    for column in ("index", "value", "standard deviations from the mean"):
        table.add_column(column, justify="right")
    for weight in report.protected:
        index = ", ".join(map(str, weight.index))
        table.add_row(f"[{index}]", f"{weight.value:.5g}", f"{weight.deviations:+.1f}")
    return table
