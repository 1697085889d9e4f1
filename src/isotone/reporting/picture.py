"""A chart as a picture: PNG without a browser, packed small."""

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
    """A Vega-Lite chart as PNG, at twice its size."""
    return _repacked(vl_convert.vegalite_to_png(spec, vl_version=VEGA_LITE, scale=_SCALE))


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
