"""Atomic writes: the one place where a file is written under a temporary name and renamed.

A reader sees the old content or the new content, never a part of either.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY_FILES = ".*.tmp"
"""The glob pattern of temporary names."""


def temporary_name(name: str, *, unique: bool = False) -> str:
    """Return the temporary name of a file that is being written.

    Parameters
    ----------
    name : str
        The final name of the file, without its directory.
    unique : bool
        Whether two calls return different names.

    Returns
    -------
    str
        A hidden name that ends in `.tmp`.
    """
    return f".{name}.{secrets.token_hex(8)}.tmp" if unique else f".{name}.tmp"


@contextmanager
def writing_atomically(
    path: Path, *, durable: bool = True, unique: bool = False
) -> Iterator[BinaryIO]:
    """Open a file whose content appears at `path` when the `with` ends without an exception.

    Parameters
    ----------
    path : Path
        Where the file will be; its directory must exist. An older file is replaced.
    durable : bool
        Whether the content is forced onto the disk (fsync) before the rename, so that it survives a
        crash of the machine, and not only of the process.
    unique : bool
        Whether several writers may write the same file at once; each gets a temporary file of its
        own, and the last rename wins.

    Yields
    ------
    binary file
        Receives the content. After an exception its temporary file is removed.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    temporary = path.with_name(temporary_name(path.name, unique=unique))
    try:
        with temporary.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file whole or not at all.

    Parameters
    ----------
    path : Path
        Where the file will be; its directory must exist. An older file is replaced.
    content : bytes
        All of its bytes.
    durable : bool
        Whether the content is forced onto the disk before the rename (see `writing_atomically`).

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    with writing_atomically(path, durable=durable) as file:
        file.write(content)
