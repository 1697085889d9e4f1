"""A file of this machine that is read by position, so that threads can share it.

The bytes are copied into memory of our own. Mapping the file would be simpler, but its pages would
count as memory of this process.
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

    It pickles as its path and its size. Unpickling opens the file again, in any process that sees
    it, and raises FormatError if the size is another one.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    FormatError
        If the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._number = -1
        self.path = path
        try:
            self._number = os.open(path, os.O_RDONLY)
            self.n_bytes = os.fstat(self._number).st_size
        except OSError as error:
            raise FormatError(f"{path}: cannot be read: {error.strerror}") from error

    def read(self, n_bytes: int, position: int) -> NDArray[np.uint8]:
        """Return bytes of the file.

        Parameters
        ----------
        n_bytes : int
            How many.
        position : int
            Where they begin, in bytes from the start of the file.

        Returns
        -------
        uint8 array, `[n_bytes]`
            The bytes, in memory of their own.

        Raises
        ------
        FormatError
            If the file cannot be read, or ends before.
        """
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
        """Drop bytes that will not be read again from the page cache, if the system can.

        Using a page again costs far less than getting a fresh one, on virtual machines above all.

        Parameters
        ----------
        n_bytes : int
            How many.
        position : int
            Where they begin, in bytes from the start of the file.
        """
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._number, position, n_bytes, os.POSIX_FADV_DONTNEED)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path.absolute(), self.n_bytes)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # The default argument keeps `close`: `os` may be gone when the interpreter shuts down.
        if self._number >= 0:
            close(self._number)


def _reopen(path: Path, n_bytes: int) -> PositionedFile:
    file = PositionedFile(path)
    check_size(path, file.n_bytes, n_bytes)
    return file


def check_size(path: Path, found: int, expected: int) -> None:
    """Check that a file that is opened again has the same size.

    Parameters
    ----------
    path : Path
        The file, for the message.
    found, expected : int
        Its size now, and when it was opened first, in bytes.

    Raises
    ------
    FormatError
        If the two differ.
    """
    if found != expected:
        raise FormatError(
            f"{path}: is {found} bytes long, and was {expected} when it was opened first; "
            "it changed while it was read, run it again"
        )
