"""`isotone report`: draw what a study or a frontier has measured."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from isotone.cli.console import print_json, progress_bar, say
from isotone.cli.options import Json, Title

# isotone.reporting imports Altair, so the command imports it when it runs.

Results = Annotated[
    Path,
    typer.Argument(metavar="RESULTS", help="A directory of isotone study run or isotone frontier."),
]
PagePath = Annotated[
    Path,
    typer.Argument(
        metavar="OUT.html",
        help="The page to write; pictures and data go into the folder OUT beside it.",
    ),
]


def report(results: Results, out: PagePath, title: Title = None, json: Json = False) -> None:
    """Draw RESULTS on one page that needs no network.

    The picture and the data of each chart are written beside it.
    """
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
    if json:
        names = [figure.name for figure in page.figures]
        print_json({"charts": names, "html": files[0], "files": files})
    else:
        say("\n".join(files))
