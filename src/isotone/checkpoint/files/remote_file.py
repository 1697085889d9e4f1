"""A file in an object store that is read by ranges of bytes, like a file of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.files.local_file import check_size
from isotone.checkpoint.files.location import key, reaching, store
from isotone.errors import FormatError


class RemoteFile:
    """A file in a store; safe to read from several threads. It pickles like `PositionedFile`.

    Parameters
    ----------
    path : Path
        A remote path (see `location`); the store is asked for its size.

    Raises
    ------
    FormatError
        If the store has no such file, or cannot be reached.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with reaching(path):
                self.n_bytes = int(store(path).info(key(path))["size"])
        except OSError as error:
            raise FormatError(f"{path}: cannot be read: {error.strerror}") from error

    def read(self, n_bytes: int, position: int) -> NDArray[np.uint8]:
        """Return bytes of the file, with one request.

        Parameters
        ----------
        n_bytes : int
            How many.
        position : int
            Where they begin, in bytes from the start of the file.

        Returns
        -------
        uint8 array, `[n_bytes]`
            The bytes.

        Raises
        ------
        FormatError
            If the file cannot be read, or ends before.
        """
        if n_bytes == 0:
            return np.empty(0, np.uint8)  # stores refuse an empty range
        try:
            with reaching(self.path):
                data = store(self.path).cat_file(
                    key(self.path), start=position, end=position + n_bytes
                )
        except OSError as error:
            raise FormatError(f"{self.path}: cannot be read: {error.strerror}") from error
        if len(data) != n_bytes:
            raise FormatError(f"{self.path}: was truncated while it was read")
        return np.frombuffer(data, np.uint8)

    def forget(self, n_bytes: int, position: int) -> None:
        """Do nothing, because no bytes are kept here.

        Parameters
        ----------
        n_bytes : int
            How many bytes will not be read again.
        position : int
            Where they begin.
        """

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self.n_bytes)


def _reopen(path: Path, n_bytes: int) -> RemoteFile:
    file = RemoteFile(path)
    check_size(path, file.n_bytes, n_bytes)
    return file
