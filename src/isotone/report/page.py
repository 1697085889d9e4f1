"""A chart as files: a picture, and a page that opens by itself, without a network."""

from __future__ import annotations

import html
import json
import os
import struct
import zlib
from pathlib import Path
from string import Template
from typing import Any

import altair as alt
import vl_convert

from isotone.checkpoint.staging import writing

_SCALE = 2.0  # pixels of the picture for each of the chart's: for screens that have as many

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { margin: 1.5rem auto; width: fit-content; max-width: 100%; overflow-x: auto;
  font: 14px Helvetica, Arial, sans-serif; color: #5f666e; background: white; }
p { margin: 0.5rem 16px; }
#vg-tooltip-element { font: 13px Helvetica, Arial, sans-serif; max-width: 26rem; }
</style>
<script>$library</script>
</head>
<body>
<div id="chart"></div>
<p>Point at a mark for its figures. Click a name in the legend to see it alone (with shift: more of
them), click beside it to see all. Scroll to zoom, drag to move, double-click to go back.</p>
<script>
vegaEmbed("#chart", $spec, $options).catch(console.error);
</script>
</body>
</html>
""")

_OPTIONS = {
    "mode": "vega-lite",
    "renderer": "svg",
    # No link to an editor elsewhere: the page is complete without a network.
    "actions": {"export": True, "source": False, "compiled": False, "editor": False},
}


def write_chart(chart: alt.TopLevelMixin, out: str | Path, name: str) -> tuple[Path, Path]:
    """Write NAME.html and NAME.png into a directory, each whole or not at all; return both paths.

    The page holds the chart and all code that draws it (0.9 MB). Raises InputError where they
    cannot be written.
    """
    spec: dict[str, Any] = chart.to_dict()
    version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    title = spec.get("title", name)
    library = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
    page = _PAGE.substitute(
        title=html.escape(str(title["text"] if isinstance(title, dict) else title)),
        library=library.replace("</script", "<\\/script"),
        spec=_script(spec),
        options=_script(_OPTIONS),
    )
    picture = vl_convert.vegalite_to_png(spec, vl_version=version, scale=_SCALE)
    paths = Path(out) / f"{name}.html", Path(out) / f"{name}.png"
    with writing(Path(out)):
        Path(out).mkdir(parents=True, exist_ok=True)
        _write(paths[0], page.encode())
        _write(paths[1], _repacked(picture))
    return paths


def _repacked(png: bytes) -> bytes:
    """The same picture in a quarter of the bytes: vl-convert packs in a hurry, README's wait.

    Chunks are length, kind, content, checksum (RFC 2083); the pixels' are joined into one.
    """
    chunks, pixels, at = [], b"", len(_PNG_MAGIC)
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        content = png[at + 8 : at + 8 + length]
        at += 12 + length
        if kind == b"IDAT":
            pixels += content
        else:
            chunks.append((kind, content))
    chunks.insert(-1, (b"IDAT", zlib.compress(zlib.decompress(pixels), 9)))
    return _PNG_MAGIC + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def _script(content: object) -> str:
    """JSON that no text in it can end the script with."""
    return json.dumps(content, allow_nan=False).replace("<", "\\u003c")


def _write(path: Path, content: bytes) -> None:
    scratch = path.with_name(f".{path.name}.tmp")
    with scratch.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    scratch.rename(path)
