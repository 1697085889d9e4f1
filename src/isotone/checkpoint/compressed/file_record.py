"""The record of one file of a directory that isotone wrote: its size and its hash.

All hashes are BLAKE3, in hexadecimal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from isotone.checkpoint.files.location import reaching
from isotone.errors import FormatError

_PIECE_BYTES = 16 << 20


@dataclass(frozen=True)
class FileRecord:
    """What the manifest records of a shard, or of any other file beside it.

    Attributes
    ----------
    name : str
        The path of the file relative to the directory, with forward slashes.
    n_bytes : int
        Its size in bytes.
    hash : str
        The BLAKE3 hash of its bytes, in hexadecimal.
    """

    name: str
    n_bytes: int
    hash: str


def hash_file(path: Path) -> str:
    """Return the hash of a file's bytes, which are read in pieces.

    Parameters
    ----------
    path : Path
        A file on this machine or in a store.

    Returns
    -------
    str
        The BLAKE3 hash in hexadecimal.

    Raises
    ------
    FormatError
        If the file cannot be read.
    """
    hasher = blake3()
    for piece in read_pieces(path):
        hasher.update(piece)
    return hasher.hexdigest()


def read_pieces(path: Path) -> Iterator[bytes]:
    """Read a file from its start to its end.

    Parameters
    ----------
    path : Path
        A file on this machine or in a store.

    Yields
    ------
    bytes
        At most 16 MiB of it.

    Raises
    ------
    FormatError
        If the file cannot be read.
    """
    try:
        with reaching(path), path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error


def check_file(path: Path, record: FileRecord) -> None:
    """Check that a file is the one that was recorded.

    Parameters
    ----------
    path : Path
        The file.
    record : FileRecord
        What the manifest records of it.

    Raises
    ------
    FormatError
        If its bytes have another hash, or cannot be read.
    """
    if hash_file(path) != record.hash:
        raise _changed(path)


def _changed(path: Path) -> FormatError:
    return FormatError(f"{path}: was changed after it was written")
