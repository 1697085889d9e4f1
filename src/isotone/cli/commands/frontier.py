"""`isotone frontier`: compress a model to many sizes, and measure what each costs in quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from isotone.cli.console import hide_foreign_bars, print_json, say, stdout
from isotone.cli.engines import at_work
from isotone.cli.options import (
    Address,
    Bos,
    Context,
    Cores,
    DenseModel,
    Device,
    Dtype,
    EngineName,
    Exclude,
    Include,
    Json,
    Text,
    Title,
    Windows,
    Workers,
)
from isotone.cli.tables import plain_table
from isotone.errors import InputError

# isotone.evaluation imports torch, and isotone.reporting Altair: the command imports them when it
# runs.

Results = Annotated[
    Path, typer.Argument(metavar="RESULTS", help="The directory of the points and the chart.")
]
BitsList = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        help="Sizes for the method entropy in bits per weight, separated by commas; '' for none.",
    ),
]
KList = Annotated[
    str,
    typer.Option(
        "--k",
        metavar="LIST",
        help="Numbers of centroids for k-means, separated by commas; '' for none.",
    ),
]
CalibrateToo = Annotated[
    str | None,
    typer.Option(
        metavar="self|FILE",
        help="Measure the sizes of --bits once more, calibrated on text that the model writes or "
        "on a FILE.",
    ),
]
Points = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help="JSON with points that were measured elsewhere, to draw as well; may be repeated.",
    ),
]
Caption = Annotated[str | None, typer.Option(metavar="TEXT", help="Caption below the chart.")]
OverwritePoints = Annotated[
    bool, typer.Option("--overwrite", help="Drop the points of another sweep in RESULTS.")
]

Number = TypeVar("Number", int, float)


def frontier(
    model: DenseModel,
    results: Results,
    text: Text,
    context: Context = 1024,
    windows: Windows = 8,
    bits: BitsList = "2.6,3.1,3.6,4.1,5.0",
    k: KList = "16,32,64",
    include: Include = None,
    exclude: Exclude = None,
    calibrate: CalibrateToo = None,
    points: Points = None,
    title: Title = None,
    caption: Caption = None,
    bos: Bos = "auto",
    dtype: Dtype = "float32",
    device: Device = "cpu",
    workers: Workers = None,
    engine: EngineName = "local",
    address: Address = None,
    cores: Cores = None,
    overwrite: OverwritePoints = False,
    json: Json = False,
) -> None:
    """Compress MODEL to many sizes, and measure each.

    Quality over bits per weight is drawn as a chart. A sweep that was stopped goes on where it
    stopped.
    """
    hide_foreign_bars()
    job: dict[str, Any] = {"text": text, "context": context, "windows": windows}
    job |= {"include": include or (), "exclude": exclude or (), "dtype": dtype, "device": device}
    job |= {"workers": workers, "overwrite": overwrite, "bos": bos}
    job |= _points_asked_for(bits, k, calibrate, points)
    with at_work(engine, address, cores, workers) as (progress, opened):
        job |= {"engine": opened, "progress": progress}
        records, page, picture = _sweep_and_draw(model, results, job, title, caption)
    if json:
        print_json({"points": records, "html": str(page), "png": str(picture)})
    else:
        stdout.print(_table(records))
        say(f"{page}\n{picture}")


def _points_asked_for(
    bits: str, k: str, calibrate: str | None, files: Sequence[Path] | None
) -> dict[str, Any]:
    """Read what to measure, and the points that others measured."""
    from isotone.evaluation.frontier.baselines import read_points
    from isotone.evaluation.frontier.variants import frontier_variants

    sizes, numbers = _numbers(bits, float, "--bits"), _numbers(k, int, "--k")
    return {
        "variants": frontier_variants(sizes, numbers, calibrate),
        "baselines": [point for path in files or () for point in read_points(path)],
    }


def _sweep_and_draw(
    model: str, results: Path, job: Mapping[str, Any], title: str | None, caption: str | None
) -> tuple[list[dict[str, Any]], Path, Path]:
    """Return all points, and the paths of the chart and its picture."""
    from isotone.evaluation.frontier.sweep import frontier as sweep

    # Imported before the sweep, so that a missing extra is named before anything is measured.
    from isotone.reporting.frontier.chart import frontier_chart, protocol_caption
    from isotone.reporting.page import write_chart

    measured = sweep(model, results, **job)
    job["progress"].begin("drawing", 0)
    records = [*map(asdict, measured), *job["baselines"]]
    chart = frontier_chart(
        records,
        title=title or f"{measured[0].protocol.model}: quality over size",
        caption=caption or protocol_caption(records[0]),
    )
    page, picture = write_chart(chart, results, "frontier")
    return records, page, picture


def _numbers(text: str, kind: Callable[[str], Number], option: str) -> list[Number]:
    """Read numbers separated by commas; an empty text holds none."""
    try:
        return [kind(item) for item in text.split(",") if item.strip()]
    except ValueError as error:
        raise InputError(
            f"{option} is {text!r}; expected numbers with commas between, or '' for none"
        ) from error


def _table(points: Sequence[Mapping[str, Any]]) -> Table:
    table = plain_table(("family", "label"), ("bits", "perplexity", "KL", "same top-1"))
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
    """Put the dense model first, then the sweep, then points of others; each family by size."""
    rank = ("dense", "swept", "peer").index(point["kind"])
    return rank, point["family"], point["bits_per_weight"]


def _shown(value: object, pattern: str, missing: str = "–") -> str:
    return pattern.format(value) if isinstance(value, int | float) else missing
