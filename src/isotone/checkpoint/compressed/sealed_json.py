"""JSON text that holds a digest of itself, and is refused unless it is that text byte for byte.

There is only one way to write a record, so that its digest identifies it. The digest is the last
key; its value is the BLAKE3 hash of the text without that key, in hexadecimal.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Protocol, TypeVar

from blake3 import blake3

from isotone.errors import FormatError

_END = re.compile(r'\n "digest": "([0-9a-f]{64})"\n}\n\Z')
_MAX_BYTES = 1 << 28  # a record takes less than a kilobyte a tensor
_END_BYTES = len('\n "digest": ""\n}\n') + 64


class Sealed(Protocol):
    """A record that can write its canonical text."""

    def to_text(self) -> str:
        """Return the canonical text, digest included."""
        ...


Record = TypeVar("Record", bound=Sealed)


def _canonical(body: dict[str, Any]) -> str:
    """Return the only text that stands for a record."""
    return json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def seal(body: dict[str, Any]) -> str:
    """Return the canonical text of a record, with its digest.

    Parameters
    ----------
    body : dict
        The record as JSON, without a digest; the order of its keys is kept.

    Returns
    -------
    str
        The text of the file.
    """
    return _canonical({**body, "digest": blake3(_canonical(body).encode()).hexdigest()})


def read_sealed(
    path: Path, versions: Collection[int], parse: Callable[[dict[str, Any]], Record]
) -> tuple[Record, str]:
    """Read a sealed file.

    Parameters
    ----------
    path : Path
        The file.
    versions : collection of int
        The values of `format_version` that are read.
    parse : callable
        Makes the record of its JSON table; raises KeyError, TypeError or ValueError if it cannot.

    Returns
    -------
    record
        What `parse` returned.
    digest : str
        The digest that identifies the record.

    Raises
    ------
    FormatError
        If the file cannot be read, has another version, or is not the canonical text of a record.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise FormatError(f"{path}: is longer than {_MAX_BYTES} bytes; no manifest is")
        text = path.read_text("utf-8")
        body = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: cannot be read: {error}") from error
    version = body.get("format_version") if isinstance(body, dict) else None
    if type(version) is not int or version not in versions:
        raise FormatError(
            f"{path}: has format version {version!r}; this isotone reads "
            f"{', '.join(map(str, versions))}; install the isotone that wrote it"
        )
    try:
        record = parse(body)
        intact = record.to_text() == text
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: is damaged: {error!r}") from error
    if not intact:
        raise FormatError(f"{path}: was changed after it was written; its digest does not fit")
    return record, str(body["digest"])


def claimed_digest(path: Path) -> str | None:
    """Return the digest that a sealed file ends with, without checking it.

    Parameters
    ----------
    path : Path
        Whatever may be a sealed file; no more than its last hundred bytes are read.

    Returns
    -------
    str or None
        The digest; None if the path is no such file, or cannot be read.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would keep us waiting
    except (OSError, ValueError):
        return None
    try:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            return None
        end = os.pread(number, _END_BYTES, max(0, status.st_size - _END_BYTES))
    except OSError:
        return None
    finally:
        os.close(number)
    found = _END.search(end.decode("latin-1"))
    return found[1] if found else None
