"""The command that draws what others have measured."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from isotone.cli.console import print_json, progress_bar, stdout
from isotone.cli.judge import Json


def report(
    results: Annotated[
        Path,
        typer.Argument(metavar="RESULTS", help="What isotone study run or isotone frontier made."),
    ],
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT.html", help="The page; pictures and data go into OUT beside."),
    ],
    title: Annotated[str | None, typer.Option(help="Of the page.")] = None,
    json: Json = False,
) -> None:
    """Draw RESULTS on one page that needs no network, with each chart's picture and data."""
    from isotone.reporting.frontier.page import frontier_page
    from isotone.reporting.page import write_page
    from isotone.reporting.records import RUNS_FILE, read_results
    from isotone.reporting.study.page import study_page

    asked = ["isotone", "report", str(results), str(out), *(["--title", title] if title else [])]
    name, records = read_results(results)
    with progress_bar() as progress:
        progress.begin("drawing", 0)
        make = study_page if name == RUNS_FILE else frontier_page
        page = make(records, title=title, command=shlex.join(asked))
        files = [str(path) for path in write_page(page, out)]
    names = [figure.name for figure in page.figures]
    if json:
        print_json({"charts": names, "html": files[0], "files": files})
    else:
        stdout.print("\n".join(files), highlight=False, soft_wrap=True)


COMMANDS: dict[str, Callable[..., None]] = {"report": report}
