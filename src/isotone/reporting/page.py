"""Charts as files: pictures, their data, and a page that opens by itself, without a network."""

from __future__ import annotations

import base64
import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import vl_convert

from isotone.checkpoint.files.atomic import write_atomically
from isotone.checkpoint.staging.staging import writing
from isotone.errors import InputError
from isotone.reporting.figure import Figure, csv_text
from isotone.reporting.picture import VEGA_LITE, png

_HELP = (
    "Point at a mark for its figures. Click a name in the legend to see it alone (with shift: more "
    "of them), click beside it to see all. Scroll to zoom, drag to move, double-click to go back."
)

_OPTIONS = {
    "mode": "vega-lite",
    "renderer": "svg",
    # No link to an editor elsewhere: the page is complete without a network.
    "actions": {"export": True, "source": False, "compiled": False, "editor": False},
}

_TITLE_WIDTH = 120  # characters that surely fit above a picture


@dataclass(frozen=True)
class Table:
    """A table of a page; every cell is a list of paragraphs.

    Attributes
    ----------
    heading : str
        The title above the table.
    note : str
        The explanation below it.
    columns : sequence of str
        The names of the columns.
    rows : sequence of sequence of sequence of str
        The rows of cells.
    """

    heading: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Sequence[str]]]


@dataclass(frozen=True)
class Page:
    """What is on a page, from top to bottom; all of it is plain text.

    Attributes
    ----------
    title : str
        The title.
    facts : sequence of (str, str)
        Names and values.
    tables : sequence of Table
        The tables.
    figures : sequence of Figure
        The charts.
    left_out : sequence of str
        Lines that say what is not there, and why.
    command : str
        The command that makes the page again.
    """

    title: str
    facts: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    left_out: Sequence[str] = ()
    command: str = ""


@dataclass(frozen=True)
class _EmbeddedChart:
    """A chart as the template takes it.

    `files` has the names and the data URIs of the files to offer below it.
    """

    name: str
    spec: dict[str, Any]
    heading: str = ""
    guide: str = ""
    caption: str = ""
    files: Sequence[tuple[str, str]] = ()


def write_page(page: Page, out: str | Path) -> list[Path]:
    """Write a page, and the picture and the data of each chart.

    OUT.html links to nothing outside of itself: pictures and data are in it too. NAME.png and
    NAME.csv of each chart go into the folder OUT beside it. The page is written last.

    Parameters
    ----------
    page : Page
        The page.
    out : str or Path
        The path of the page, which ends in .html.

    Returns
    -------
    list of Path
        All files, the page first.

    Raises
    ------
    InputError
        If `out` does not end in .html, or a file cannot be written.
    """
    out = Path(out)
    if out.suffix != ".html" or not out.stem:
        raise InputError(f"{out}: expected a name that ends in .html")
    folder = out.with_suffix("")
    files: dict[Path, bytes] = {}
    charts = []
    for figure in page.figures:
        spec = figure.chart.to_dict()
        own = {
            f"{figure.name}.png": png({**_titled(figure), **spec}),
            f"{figure.name}.csv": csv_text(figure.rows).encode(),
        }
        files |= {folder / name: content for name, content in own.items()}
        links = [(name, _data_uri(name, content)) for name, content in own.items()]
        said = figure.heading, figure.guide, figure.caption
        charts.append(_EmbeddedChart(figure.name, spec, *said, files=links))
    with writing(out):
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            write_atomically(path, content)
        write_atomically(out, _rendered(page, charts).encode())
    return [out, *files]


def write_chart(chart: alt.TopLevelMixin, out: str | Path, name: str) -> tuple[Path, Path]:
    """Write a chart as a page and as a picture, each of them atomically.

    The page, of 0.9 MB, holds all code that draws the chart.

    Parameters
    ----------
    chart : altair.TopLevelMixin
        The chart.
    out : str or Path
        The directory to write to; it is made where it is missing.
    name : str
        The name of the files, without its suffix.

    Returns
    -------
    page, picture : Path
        NAME.html and NAME.png. A file that cannot be written raises InputError.
    """
    spec: dict[str, Any] = chart.to_dict()
    title = spec.get("title", name)
    alone = Page(str(title["text"] if isinstance(title, dict) else title))
    page = _rendered(alone, [_EmbeddedChart(name, spec)])
    picture = png(spec)
    paths = Path(out) / f"{name}.html", Path(out) / f"{name}.png"
    with writing(Path(out)):
        Path(out).mkdir(parents=True, exist_ok=True)
        write_atomically(paths[0], page.encode())
        write_atomically(paths[1], picture)
    return paths


def _rendered(page: Page, charts: Sequence[_EmbeddedChart]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.j2").render(
        page=page,
        charts=charts,
        help=_HELP,
        library=_library(),
        specs=_script([chart.spec for chart in charts]),
        options=_script(_OPTIONS),
    )


@cache
def _library() -> str:
    """Return all code that draws; no text in it can end the script."""
    code = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    return code.replace("</script", "<\\/script")


def _titled(figure: Figure) -> dict[str, Any]:
    """Return a title for the picture, which stands without the page's words above the chart."""
    guide = textwrap.wrap(figure.guide, _TITLE_WIDTH)
    return {"title": {"text": figure.heading, "subtitle": guide}}


def _data_uri(name: str, content: bytes) -> str:
    kind = "image/png" if name.endswith(".png") else "text/csv;charset=utf-8"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _script(content: object) -> str:
    """Return JSON in which no text can end the script."""
    return json.dumps(content, allow_nan=False).replace("<", "\\u003c")
