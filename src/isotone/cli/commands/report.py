"""`isotone report`: draw what a study or a frontier has measured."""

from __future__ import annotations

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
    from isotone.reporting.report import report as draw

    with progress_bar() as progress:
        made = draw(results, out, title, progress=progress)
    files = [str(path) for path in made.files]
    if json:
        print_json({"charts": list(made.charts), "html": files[0], "files": files})
    else:
        say("\n".join(files))
