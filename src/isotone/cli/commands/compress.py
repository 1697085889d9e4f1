"""`isotone compress`: cluster the weight matrices of a model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from isotone.cli.console import hide_foreign_bars, print_json, say, stdout, warn
from isotone.cli.engines import at_work
from isotone.cli.options import (
    Address,
    Bos,
    Cores,
    EngineName,
    Exclude,
    Include,
    Json,
    Out,
    Overwrite,
    Workers,
)
from isotone.cli.schedule import schedule_details, schedule_report
from isotone.cli.tables import fallback_lines, left_out_lines, summary_table
from isotone.errors import InputError
from isotone.pipeline.compress import compress as run_compress
from isotone.pipeline.schedule import NODE_BYTES_PER_SECOND, plan_schedule
from isotone.pipeline.summary import CompressSummary
from isotone.plan.options import selection_of

Source = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model directory, a .safetensors or .gguf file, a hub id (org/name), or a URL "
        "(s3://...).",
    ),
]
K = Annotated[
    int | None,
    typer.Option(
        "--k", metavar="K", help="Number of centroids of each matrix, 2 to 256; 16 by default."
    ),
]
Bits = Annotated[
    float | None,
    typer.Option(
        metavar="B",
        help="Size to reach, in bits on disk for each clustered weight, instead of K.",
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Clustering method: kmeans, entropy (the fewest bytes for an error; with --bits), or "
        "one that another package registered.",
    ),
]
Protect = Annotated[
    str,
    typer.Option(
        metavar="auto|off|FRACTION",
        help="Weights to store exactly, because no centroid serves them.",
    ),
]
Scale = Annotated[
    str,
    typer.Option(
        metavar="auto|none|row|both", help="Scales of the rows and columns of each matrix."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="GLOB:k=64,scale=row",
        help="Other settings for the tensors whose name matches GLOB; may be repeated.",
    ),
]
Calibrate = Annotated[
    str | None,
    typer.Option(
        metavar="self|FILE|DIR",
        help="Weigh errors by their effect on the model, measured on text that it writes itself, "
        "on a text FILE, or by isotone calibrate in DIR.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Print what would be done and how long it would take; write nothing."
    ),
]
Nodes = Annotated[
    int | None,
    typer.Option(metavar="N", help="With --dry-run: number of nodes to plan for; 1 by default."),
]
NodeRate = Annotated[
    float | None,
    typer.Option(
        metavar="RATE",
        help="With --dry-run: GB/s that each node reads and compresses; 1 by default.",
    ),
]


def compress(
    model: Source,
    out: Out,
    k: K = None,
    bits: Bits = None,
    method: Method = None,
    protect: Protect = "auto",
    scale: Scale = "auto",
    include: Include = None,
    exclude: Exclude = None,
    settings: Settings = None,
    calibrate: Calibrate = None,
    bos: Bos = "auto",
    workers: Workers = None,
    engine: EngineName = "local",
    address: Address = None,
    cores: Cores = None,
    dry_run: DryRun = False,
    nodes: Nodes = None,
    node_rate: NodeRate = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Cluster the weight matrices of MODEL into OUT."""
    asked: dict[str, Any] = {"k": k, "bits": bits, "method": method}
    asked |= {"protect": protect, "scale": scale}
    asked |= {"include": include or (), "exclude": exclude or (), "settings": settings or ()}
    if dry_run:
        return _print_schedule(model, asked, nodes, node_rate, json=json)
    _refuse_planning(nodes, node_rate)
    if calibrate is not None:
        hide_foreign_bars()
    rest: dict[str, Any] = {"calibrate": calibrate, "bos": bos}
    rest |= {"workers": workers, "overwrite": overwrite}
    with at_work(engine, address, cores, workers) as (progress, opened):
        summary = run_compress(model, out, **asked, **rest, engine=opened, progress=progress)
    _print_summary(out, summary, json=json)


def _print_summary(out: str, summary: CompressSummary, *, json: bool) -> None:
    for line in (*left_out_lines(summary), *fallback_lines(summary)):
        warn(line)
    if json:
        print_json(summary)
    else:
        say(out)
        stdout.print(summary_table(summary))


def _print_schedule(
    model: str, asked: dict[str, Any], nodes: int | None, node_rate: float | None, *, json: bool
) -> None:
    schedule = plan_schedule(
        model,
        selection_of(**asked)[0],
        1 if nodes is None else nodes,
        NODE_BYTES_PER_SECOND if node_rate is None else 1e9 * node_rate,
    )
    if json:
        print_json(schedule_details(schedule))
        return
    for part in schedule_report(schedule):
        stdout.print(part, highlight=False, soft_wrap=True)


def _refuse_planning(nodes: int | None, node_rate: float | None) -> None:
    for option, value in (("--nodes", nodes), ("--node-rate", node_rate)):
        if value is not None:
            raise InputError(f"{option} is {value:g}, and only --dry-run uses it; add --dry-run")
