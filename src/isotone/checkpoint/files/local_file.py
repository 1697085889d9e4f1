"""A file of this machine that is read by position, so that threads can share it.

The bytes are copied into memory of our own. Mapping the file would be simpler, but its pages would
count as memory of this process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotone.errors import FormatError


class PositionedFile:
    """A file that is opened when it is read, and closed when many others have been read since.

    A model may have more shards than a process may hold open (256 on some systems), so descriptors
    are shared out by `Descriptors`. A file that is another one when it is opened again is refused.

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
        self.path = path
        self._status: os.stat_result | None = None
        with _OPEN.using(self) as number:
            self.n_bytes = os.fstat(number).st_size

    def open(self) -> int:
        """Return a new descriptor of the file.

        Returns
        -------
        int
            The descriptor, which the caller closes.

        Raises
        ------
        FormatError
            If the file cannot be opened, or is not the one that was opened first.
        """
        try:
            number = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise FormatError(f"{self.path}: cannot be read: {error.strerror}") from error
        status = os.fstat(number)
        if self._status is None:
            self._status = status
        elif not os.path.samestat(status, self._status) or status.st_size != self._status.st_size:
            os.close(number)
            raise FormatError(f"{self.path}: was replaced while it was read, run it again")
        return number

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
        with _OPEN.using(self) as number:
            while len(view):
                try:
                    n_read = os.preadv(number, [view], position)
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
            with _OPEN.using(self) as number:
                os.posix_fadvise(number, position, n_bytes, os.POSIX_FADV_DONTNEED)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path.absolute(), self.n_bytes)

    def __del__(self) -> None:
        _OPEN.close(self)


class Descriptors:
    """Keeps the descriptors of the files that were read last; safe to use from many threads.

    Parameters
    ----------
    limit : int
        The most descriptors that stay open while none is in use.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # A file may be collected as garbage by the thread that holds the lock.
        self._lock = threading.RLock()
        self._open: dict[
            int, _Descriptor
        ] = {}  # by the id of the file, the one read last at the end

    @contextmanager
    def using(self, file: PositionedFile) -> Iterator[int]:
        """Hold the descriptor of a file open for the length of a `with`.

        Parameters
        ----------
        file : PositionedFile
            The file.

        Yields
        ------
        int
            The descriptor.

        Raises
        ------
        FormatError
            If the file cannot be opened, or is another one than before.
        """
        with self._lock:
            held = self._open.pop(id(file), None) or _Descriptor(file.open())
            self._open[id(file)] = held
            held.n_users += 1
            self._close_unused()
        try:
            yield held.number
        finally:
            with self._lock:
                held.n_users -= 1

    def close(self, file: PositionedFile) -> None:
        """Close the descriptor of a file that is not used any more, if there is one.

        Parameters
        ----------
        file : PositionedFile
            The file.
        """
        with self._lock:
            held = self._open.pop(id(file), None)
            if held is not None:
                held.close()

    def _close_unused(self) -> None:
        for key in list(self._open)[: -self._limit]:
            held = self._open.get(key)
            if held is not None and held.n_users == 0:
                del self._open[key]
                held.close()


@dataclass
class _Descriptor:
    number: int
    n_users: int = 0
    close_number: Callable[[int], None] = os.close  # `os` may be gone when the interpreter ends

    def close(self) -> None:
        self.close_number(self.number)


_OPEN = Descriptors(32)


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
