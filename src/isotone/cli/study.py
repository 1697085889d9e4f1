"""The commands of rank studies: what ships, and running a plan."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from isotone.cli.console import hide_foreign_bars, print_json, progress_bar, stdout
from isotone.cli.engines import Address, Cores, EngineName, opened_engine
from isotone.cli.judge import Device, Dtype, Json

# isotone.study brings torch: imported where a command runs.

app = typer.Typer(help="Change codebooks while the assignments stay, and watch the model.")


@app.command("run")
def run(
    plan: Annotated[
        str, typer.Argument(metavar="PLAN", help="A TOML file, or the name of a plan that ships.")
    ],
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="The directory of what is measured.")
    ],
    model: Annotated[
        str,
        typer.Option(metavar="DIR", help="A dense model, clustered as PLAN says; or a clustered."),
    ],
    text: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="A UTF-8 text to judge on, or 'builtin' for the one Python ships."
        ),
    ],
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes, 1 by default, which share the cores; or workers of a cluster."
        ),
    ] = None,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    engine: EngineName = "local",
    address: Address = None,
    cores: Cores = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Drop what RESULTS holds first.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure every run of PLAN that RESULTS does not hold yet; killed, it goes on from there."""
    hide_foreign_bars()
    from isotone.study.plan import read_plan
    from isotone.study.run import run_study

    with (
        progress_bar() as progress,
        opened_engine(engine, address, cores, workers) as where,
    ):
        summary = run_study(
            read_plan(plan),
            results,
            model=model,
            text=text,
            workers=1 if workers is None else workers,
            engine=where,
            dtype=dtype,
            device=device,
            overwrite=overwrite,
            progress=progress,
        )
    if json:
        print_json({**asdict(summary), "results": str(results)})
    else:
        skipped = f", {summary.n_skipped} left out after a collapse" if summary.n_skipped else ""
        stdout.print(
            f"{results}: {summary.n_done} of {summary.n_total} runs measured{skipped}; "
            f"{summary.n_measured} now, in {summary.seconds:.0f} s\n"
            f"isotone report {results} {results}.html  makes a page of them",
            highlight=False,
            soft_wrap=True,
        )


@app.command("list")
def list_plans(json: Json = False) -> None:
    """Show the plans that ship, and the edits and corrections that plans can name."""
    from isotone.study.affine import CORRECTIONS
    from isotone.study.edits import EDITS
    from isotone.study.plan import plans

    shipped = plans()
    if json:
        edits = {
            name: {"keeps": sorted(kind.keeps), "parameters": list(kind.plan_parameters)}
            for name, kind in EDITS.items()
        }
        titles = {name: plan.title for name, plan in shipped.items()}
        print_json({"plans": titles, "edits": edits, "corrections": list(CORRECTIONS)})
        return
    table = Table("plan", "what", "grids", box=SIMPLE, pad_edge=False)
    for name, plan in shipped.items():
        table.add_row(name, plan.title, ", ".join(grid.name for grid in plan.grids))
    stdout.print(table)
    table = Table("edit", "keeps", "parameters", box=SIMPLE, pad_edge=False)
    for name, kind in EDITS.items():
        table.add_row(name, ", ".join(sorted(kind.keeps)), ", ".join(kind.plan_parameters))
    stdout.print(table)
    stdout.print(f"corrections: {', '.join(CORRECTIONS)}", highlight=False)
