"""A file read by position, so that threads can share it.

Into memory of our own: the pages of a mapping would count as ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotone.errors import FormatError


class PositionedFile:
    """An open file, which closes itself.

    Pickled, it is its path and size: what comes back has opened the file anew, in any process that
    sees it, and raises FormatError where the size is another one.
    """

    def __init__(self, path: Path) -> None:
        """Open a file; raises FormatError, naming it."""
        self._number = -1
        self.path = path
        try:
            self._number = os.open(path, os.O_RDONLY)
            self.n_bytes = os.fstat(self._number).st_size
        except OSError as error:
            raise FormatError(f"{path}: cannot be read: {error.strerror}") from error

    def read(self, n_bytes: int, position: int) -> NDArray[np.uint8]:
        """So many bytes from a position; raises FormatError where the file ends before."""
        out = np.empty(n_bytes, np.uint8)
        view = out.data
        while len(view):
            try:
                n_read = os.preadv(self._number, [view], position)
            except OSError as error:
                raise FormatError(f"{self.path}: cannot be read: {error.strerror}") from error
            if n_read == 0:
                raise FormatError(f"{self.path}: was truncated while it was read")
            view, position = view[n_read:], position + n_read
        return out

    def forget(self, n_bytes: int, position: int) -> None:
        """Let go of bytes that will not be read again, where the system can.

        A page that is used again costs far less than a fresh one, on virtual machines above all.
        """
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._number, position, n_bytes, os.POSIX_FADV_DONTNEED)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path.absolute(), self.n_bytes)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # `os` may be gone by the time the interpreter drops what is left.
        if self._number >= 0:
            close(self._number)


def _reopen(path: Path, n_bytes: int) -> PositionedFile:
    file = PositionedFile(path)
    check_size(path, file.n_bytes, n_bytes)
    return file


def check_size(path: Path, found: int, expected: int) -> None:
    """Raise FormatError where a file that is opened again has another size."""
    if found != expected:
        raise FormatError(
            f"{path}: is {found} bytes long, and was {expected} when it was opened first; "
            "it changed while it was read, run it again"
        )
