"""JSON text that carries a digest of itself, and is refused unless it is that text byte for byte.

What is in a record is written in one way only, so that its digest identifies it. The digest is the
last key and the hash of the text without it. All hashes are BLAKE3, in hexadecimal.
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
    """What can be sealed: it knows its text."""

    def to_text(self) -> str:
        """The canonical text, digest included."""
        ...


Record = TypeVar("Record", bound=Sealed)


def canonical(body: dict[str, Any]) -> str:
    """The one way to write a record."""
    return json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def seal(body: dict[str, Any]) -> str:
    """The canonical text of a record, with its digest."""
    return canonical({**body, "digest": blake3(canonical(body).encode()).hexdigest()})


def read_sealed(
    path: Path, versions: Collection[int], parse: Callable[[dict[str, Any]], Record]
) -> tuple[Record, str]:
    """A record and its digest.

    versions: the values of `format_version` that are read. parse: makes the record of JSON; raises
    KeyError, TypeError or ValueError where it cannot. Raises FormatError, naming the file, for
    anything but the text that the record has.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise FormatError(f"{path}: is longer than {_MAX_BYTES} bytes; isotone wrote no such")
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
    """The digest that a sealed file ends with, unchecked; None where it is no such file.

    Raises nothing, whatever lies there, and reads no more than a hundred bytes.
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
