"""The commands that measure a model many times over: what each size costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.box import SIMPLE
from rich.table import Table

from isotone.cli.archive import Workers
from isotone.cli.console import hide_foreign_bars, print_json, progress_bar, stdout
from isotone.cli.engines import Address, Cores, EngineName, opened_engine
from isotone.cli.judge import Device, Dtype, Json
from isotone.errors import InputError

# isotone.evaluation brings torch and isotone.reporting Altair: imported where a command runs.

Number = TypeVar("Number", int, float)


def frontier(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A dense model directory, or a hub id.")
    ],
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="The directory of points and charts.")
    ],
    text: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="A UTF-8 text to judge on, or 'builtin' for the one Python ships."
        ),
    ],
    context: Annotated[int, typer.Option(help="Tokens in a window.")] = 1024,
    windows: Annotated[int, typer.Option(help="Windows from the start of the text.")] = 8,
    bits: Annotated[
        str, typer.Option(help="Sizes for the method entropy, commas between; '' for none.")
    ] = "2.6,3.1,3.6,4.1,5.0",
    k: Annotated[
        str, typer.Option("--k", help="Shared values for k-means, commas between; '' for none.")
    ] = "16,32,64",
    include: Annotated[
        list[str] | None, typer.Option(help="Cluster only tensors that match GLOB (repeatable).")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Keep tensors that match GLOB (repeatable).")
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="self|FILE", help="The sizes once more, errors weighed by the model's own text."
        ),
    ] = None,
    points: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Points of others to draw as well, JSON (repeatable)."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Of the chart.")] = None,
    caption: Annotated[str | None, typer.Option(help="Below the chart.")] = None,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    workers: Workers = None,
    engine: EngineName = "local",
    address: Address = None,
    cores: Cores = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Drop the points of another sweep in RESULTS.")
    ] = False,
    json: Json = False,
) -> None:
    """Compress MODEL in many sizes, measure each, and draw quality over bits per weight."""
    hide_foreign_bars()
    from isotone.evaluation.frontier.baselines import read_points
    from isotone.evaluation.frontier.sweep import sweep, variants
    from isotone.reporting.frontier.chart import frontier_chart, protocol_caption
    from isotone.reporting.page import write_chart

    sizes, numbers = _numbers(bits, float, "--bits"), _numbers(k, int, "--k")
    wanted = variants(sizes, numbers, calibrate)
    peers = [point for path in points or () for point in read_points(path)]
    with (
        progress_bar() as progress,
        opened_engine(engine, address, cores, workers) as where,
    ):
        measured = sweep(
            model,
            results,
            text,
            variants=wanted,
            context=context,
            windows=windows,
            include=include or (),
            exclude=exclude or (),
            peers=peers,
            dtype=dtype,
            device=device,
            workers=workers,
            engine=where,
            overwrite=overwrite,
            progress=progress,
        )
        progress.begin("drawing", 0)
        records = [*map(asdict, measured), *peers]
        title = title or f"{measured[0].protocol.model}: quality over size"
        chart = frontier_chart(
            records, title=title, caption=caption or protocol_caption(records[0])
        )
        page, picture = write_chart(chart, results, "frontier")
    if json:
        print_json({"points": records, "html": str(page), "png": str(picture)})
    else:
        stdout.print(_table(records))
        stdout.print(f"{page}\n{picture}", highlight=False, soft_wrap=True)


COMMANDS: dict[str, Callable[..., None]] = {"frontier": frontier}


def _numbers(text: str, kind: Callable[[str], Number], option: str) -> list[Number]:
    """Numbers with commas between them; none of an empty text."""
    try:
        return [kind(item) for item in text.split(",") if item.strip()]
    except ValueError as error:
        raise InputError(
            f"{option} is {text!r}; expected numbers with commas between, or '' for none"
        ) from error


def _table(points: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=SIMPLE, pad_edge=False)
    for column in ("family", "label"):
        table.add_column(column, overflow="fold", min_width=12)
    for column in ("bits", "perplexity", "KL", "same top-1"):
        table.add_column(column, justify="right", no_wrap=True)
    for point in sorted(points, key=_order):
        error = point.get("perplexity_standard_error")
        digits = "{:,.2f}" if (point["perplexity"] or 0.0) < 1000 else "{:,.0f}"
        table.add_row(
            point["family"],
            point["label"],
            f"{point['bits_per_weight']:.3f}",
            _shown(point["perplexity"], digits) + _shown(error, f" ± {digits}", ""),
            _shown(point["kl"], "{:.4f}"),
            _shown(point.get("top1_agreement"), "{:.1%}"),
        )
    return table


def _order(point: Mapping[str, Any]) -> tuple[int, str, float]:
    """The dense model, what was swept, what others measured; each family by size."""
    rank = ("dense", "swept", "peer").index(point["kind"])
    return rank, point["family"], point["bits_per_weight"]


def _shown(value: object, pattern: str, missing: str = "–") -> str:
    return pattern.format(value) if isinstance(value, int | float) else missing
