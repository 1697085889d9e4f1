"""The report: everything that a study or a frontier has measured, on one page."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from isotone.engine.progress import Progress, Silent
from isotone.reporting.frontier.page import frontier_page
from isotone.reporting.page import write_page
from isotone.reporting.records import RUNS_FILE, read_results
from isotone.reporting.study.page import study_page


@dataclass(frozen=True)
class Report:
    """The files of a report.

    Attributes
    ----------
    charts : tuple of str
        The names of the charts, from top to bottom of the page.
    html : Path
        The page.
    files : tuple of Path
        All files: the page, and the picture and the data of each chart.
    """

    charts: tuple[str, ...]
    html: Path
    files: tuple[Path, ...]


def report(
    results: str | Path,
    out: str | Path,
    title: str | None = None,
    *,
    progress: Progress | None = None,
) -> Report:
    """Draw what a study or a frontier has measured, on one page that needs no network.

    Parameters
    ----------
    results : str or Path
        The directory that `isotone.study.run_study` or `isotone.frontier` wrote. A study that is
        still running can be drawn too.
    out : str or Path
        The page, which ends in .html. NAME.png and NAME.csv of each chart go into the folder of the
        same name beside it.
    title : str, optional
        The title of the page; by default one with the name of the model.
    progress : Progress, optional
        Told when drawing begins.

    Returns
    -------
    Report
        The charts and the files.

    Raises
    ------
    InputError
        If the directory holds no results, if `out` does not end in .html, or if a file cannot be
        written.
    """
    asked = ["isotone", "report", str(results), str(out), *(["--title", title] if title else [])]
    name, records = read_results(results)
    (progress or Silent()).begin("drawing", 0)
    make = study_page if name == RUNS_FILE else frontier_page
    page = make(records, title=title, command=shlex.join(asked))
    files = write_page(page, out)
    return Report(tuple(figure.name for figure in page.figures), files[0], tuple(files))
