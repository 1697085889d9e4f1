"""`isotone study`: measure what codebook edits do to a model, and list the plans that ship."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isotone.cli.console import hide_foreign_bars, print_json, say, stdout
from isotone.cli.engines import at_work
from isotone.cli.options import Address, Bos, Cores, Device, Dtype, EngineName, Json, Text
from isotone.cli.tables import plain_table

if TYPE_CHECKING:
    from isotone.study import StudySummary

# isotone.study imports torch, which takes seconds, so the commands import it when they run.

app = typer.Typer(help="Edit codebooks, keep the ranks, and measure the effect.")

PlanName = Annotated[
    str, typer.Argument(metavar="PLAN", help="A TOML file, or the name of a plan that ships.")
]
Results = Annotated[
    Path, typer.Argument(metavar="RESULTS", help="The directory of what is measured.")
]
ModelToStudy = Annotated[
    str,
    typer.Option(
        metavar="DIR",
        help="A dense model, which is clustered as PLAN says, or a clustered model.",
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Number of processes, which share the cores, or of workers on a cluster; 1 by "
        "default.",
    ),
]
OverwriteRuns = Annotated[
    bool, typer.Option("--overwrite", help="Drop what RESULTS holds before the study begins.")
]


@app.command("run")
def run(
    plan: PlanName,
    results: Results,
    model: ModelToStudy,
    text: Text,
    workers: Processes = None,
    bos: Bos = "auto",
    dtype: Dtype = "float32",
    device: Device = "cpu",
    engine: EngineName = "local",
    address: Address = None,
    cores: Cores = None,
    overwrite: OverwriteRuns = False,
    json: Json = False,
) -> None:
    """Measure the runs of PLAN that RESULTS does not hold yet.

    A study that was stopped goes on where it stopped.
    """
    hide_foreign_bars()
    from isotone.study import read_plan, run_study

    with at_work(engine, address, cores, workers) as (progress, opened):
        summary = run_study(
            read_plan(plan),
            results,
            model=model,
            text=text,
            workers=1 if workers is None else workers,
            engine=opened,
            bos=bos,
            dtype=dtype,
            device=device,
            overwrite=overwrite,
            progress=progress,
        )
    if json:
        print_json({**asdict(summary), "results": str(results)})
    else:
        _print_summary(results, summary)


def _print_summary(results: Path, summary: StudySummary) -> None:
    skipped = f", {summary.n_skipped} left out after a collapse" if summary.n_skipped else ""
    say(
        f"{results}: {summary.n_done} of {summary.n_total} runs measured{skipped}; "
        f"{summary.n_measured} now, in {summary.seconds:.0f} s"
    )
    say(f"isotone report {results} {results}.html  makes a page of them")


@app.command("list")
def list_plans(json: Json = False) -> None:
    """List plans that ship, and the edits that plans can name."""
    from isotone.study import CORRECTIONS, EDITS, plans

    shipped = plans()
    if json:
        edits = {
            name: {"keeps": sorted(kind.keeps), "parameters": list(kind.plan_parameters)}
            for name, kind in EDITS.items()
        }
        titles = {name: plan.title for name, plan in shipped.items()}
        print_json({"plans": titles, "edits": edits, "corrections": list(CORRECTIONS)})
        return
    table = plain_table(("plan", "what", "grids"))
    for name, plan in shipped.items():
        table.add_row(name, plan.title, ", ".join(grid.name for grid in plan.grids))
    stdout.print(table)
    table = plain_table(("edit", "keeps", "parameters"))
    for name, kind in EDITS.items():
        table.add_row(name, ", ".join(sorted(kind.keeps)), ", ".join(kind.plan_parameters))
    stdout.print(table)
    say(f"corrections: {', '.join(CORRECTIONS)}")
