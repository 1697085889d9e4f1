"""`isotone inspect`: show what a compressed directory holds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from isotone.cli.console import print_json, say, stdout
from isotone.cli.directory_tables import kept_lines, kinds_table, tensors_table
from isotone.cli.options import Directory, Json
from isotone.cli.tables import summary_table
from isotone.cli.tensor_tables import centroid_rows, tensor_parts
from isotone.pipeline.inspect import Inspection, TensorReport, inspect_tensor
from isotone.pipeline.inspect import inspect as run_inspect
from isotone.pipeline.kinds import summarise_kinds

TensorName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Show one tensor: its protected weights, and how far its centroids moved.",
    ),
]
Top = Annotated[int, typer.Option(metavar="N", help="Number of protected weights to show.", min=1)]


def inspect(
    directory: Directory, tensor: TensorName = None, top: Top = 20, json: Json = False
) -> None:
    """Show what DIR holds, by kind of matrix and by tensor."""
    if tensor is not None:
        _print_tensor(inspect_tensor(directory, tensor, n_protected=top), json=json)
        return
    inspection = run_inspect(directory)
    if json:
        print_json(_details(inspection))
        return
    stdout.print(kinds_table(inspection, stdout))
    stdout.print(tensors_table(inspection, stdout))
    for line in kept_lines(inspection, stdout.width):
        say(line, style="dim")
    say(directory)
    stdout.print(summary_table(inspection.summary))


def _print_tensor(report: TensorReport, *, json: bool) -> None:
    if json:
        centroids = None if report.movement is None else centroid_rows(report.movement)
        protected = [asdict(weight) for weight in report.protected]
        print_json(_row(report) | {"protected": protected, "centroids": centroids})
        return
    for part in tensor_parts(report):
        stdout.print(part, highlight=False, soft_wrap=isinstance(part, str))


def _details(inspection: Inspection) -> dict[str, Any]:
    """Describe a whole directory for `--json`."""
    return {
        "tensors": [_row(report) for report in inspection.clustered],
        "kept": [asdict(record) for record in inspection.kept],
        "base": None if inspection.base is None else str(inspection.base),
        "kinds": [asdict(kind) for kind in summarise_kinds(inspection.clustered)],
    } | asdict(inspection.summary)


def _row(report: TensorReport) -> dict[str, Any]:
    record, movement = report.record, report.movement
    farthest = abs(report.protected[0].deviations) if report.protected else None
    return asdict(record) | {
        "bits_per_weight": record.bits_per_weight,
        "farthest_deviations": farthest,
        "moved": None if movement is None else movement.root_mean_square,
        "moved_farthest": None if movement is None else movement.farthest,
    }
