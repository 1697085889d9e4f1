"""Recognises Git LFS pointers: a few lines of text where a clone without LFS lacks the file."""

from __future__ import annotations

from pathlib import Path

from isotone.errors import FormatError

POINTER = b"version https://git-lfs.github.com/spec/"
"""How every pointer begins."""

_MOST_BYTES = 1024  # of a pointer, by its specification


def refuse_pointer(path: Path, begin: bytes) -> None:
    """Refuse a pointer in the place of a file.

    Parameters
    ----------
    path : Path
        The file, for the message.
    begin : bytes
        Its first bytes, `len(POINTER)` of them if it has so many.

    Raises
    ------
    FormatError
        If it is a pointer.
    """
    if begin.startswith(POINTER):
        raise FormatError(
            f"{path}: is a Git LFS pointer, not the file itself; run `git lfs pull` in the clone, "
            "or download the file"
        )


def refuse_pointer_file(path: Path) -> None:
    """Refuse a pointer in the place of a file on this machine.

    Parameters
    ----------
    path : Path
        The file, of which at most its beginning is read.

    Raises
    ------
    FormatError
        If it is a pointer, or cannot be read.
    """
    try:
        if path.stat().st_size <= _MOST_BYTES:
            with path.open("rb") as file:
                refuse_pointer(path, file.read(len(POINTER)))
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
