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
    """Cells are paragraphs of text."""

    heading: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Sequence[str]]]


@dataclass(frozen=True)
class Page:
    """What is on a page, from top to bottom; all of it is plain text.

    facts: names and values. left_out: lines on what is not there. command: makes the page again.
    """

    title: str
    facts: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    left_out: Sequence[str] = ()
    command: str = ""


@dataclass(frozen=True)
class _Drawn:
    """A chart as the template takes it; files: names and data URIs to offer below it."""

    name: str
    spec: dict[str, Any]
    heading: str = ""
    look: str = ""
    caption: str = ""
    files: Sequence[tuple[str, str]] = ()


def write_page(page: Page, out: str | Path) -> list[Path]:
    """Write OUT.html, and NAME.png and NAME.csv of each chart into the folder OUT beside it.

    The page comes last, and links to nothing outside of itself: pictures and data are in it too.
    Returns all paths, the page's first. Raises InputError where OUT does not end in .html, and
    where it cannot be written.
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
        said = figure.heading, figure.look, figure.caption
        charts.append(_Drawn(figure.name, spec, *said, files=links))
    with writing(out):
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            write_atomically(path, content)
        write_atomically(out, _rendered(page, charts).encode())
    return [out, *files]


def write_chart(chart: alt.TopLevelMixin, out: str | Path, name: str) -> tuple[Path, Path]:
    """Write NAME.html and NAME.png into a directory, each whole or not at all; return both paths.

    The page holds the chart and all code that draws it (0.9 MB). Raises InputError where they
    cannot be written.
    """
    spec: dict[str, Any] = chart.to_dict()
    title = spec.get("title", name)
    alone = Page(str(title["text"] if isinstance(title, dict) else title))
    page = _rendered(alone, [_Drawn(name, spec)])
    picture = png(spec)
    paths = Path(out) / f"{name}.html", Path(out) / f"{name}.png"
    with writing(Path(out)):
        Path(out).mkdir(parents=True, exist_ok=True)
        write_atomically(paths[0], page.encode())
        write_atomically(paths[1], picture)
    return paths


def _rendered(page: Page, charts: Sequence[_Drawn]) -> str:
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
    """All code that draws, which no text in it can end the script with."""
    code = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    return code.replace("</script", "<\\/script")


def _titled(figure: Figure) -> dict[str, Any]:
    """A picture stands alone: it says what it shows, which on the page stands above it."""
    look = textwrap.wrap(figure.look, _TITLE_WIDTH)
    return {"title": {"text": figure.heading, "subtitle": look}}


def _data_uri(name: str, content: bytes) -> str:
    kind = "image/png" if name.endswith(".png") else "text/csv;charset=utf-8"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _script(content: object) -> str:
    """JSON that no text in it can end the script with."""
    return json.dumps(content, allow_nan=False).replace("<", "\\u003c")
