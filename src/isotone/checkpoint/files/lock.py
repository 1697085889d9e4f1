"""The lock of a directory that one process at a time may write to."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO, Any

from isotone.errors import InputError


def take_lock(file: IO[Any], directory: Path) -> None:
    """Lock an open file until it is closed, or until its process ends in whatever way.

    Parameters
    ----------
    file : file
        An open file in the directory, on a file system that knows `flock`.
    directory : Path
        The directory that the lock protects, for the message.

    Raises
    ------
    InputError
        If another process holds the lock.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{directory}: another isotone is at work there; wait for it") from None
