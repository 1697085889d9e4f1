"""A chart as a PNG, drawn without a browser and compressed well."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import altair as alt
import vl_convert

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
"""The version that charts are written for."""

_SCALE = 2.0  # pixels of the picture for each of the chart's: for screens that have as many

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def png(spec: dict[str, Any]) -> bytes:
    """Draw a chart at twice its size in pixels.

    Parameters
    ----------
    spec : dict
        The Vega-Lite specification.

    Returns
    -------
    bytes
        The PNG.
    """
    return _repacked(vl_convert.vegalite_to_png(spec, vl_version=VEGA_LITE, scale=_SCALE))


def _repacked(png: bytes) -> bytes:
    """Return the same picture in a quarter of the bytes.

    vl-convert compresses fast, and a picture in a README is loaded often. Chunks are length, kind,
    content and checksum (RFC 2083); the pixels' chunks are joined into one.
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
