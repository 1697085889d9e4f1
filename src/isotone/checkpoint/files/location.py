"""Where a path or a URL leads: this machine's file system, or a store that fsspec knows.

A path in a store is one of universal_pathlib: it has pathlib's interface without being of its
classes, so that what reads a directory need not know where it is. Credentials, endpoints and
retries are the business of the store's own library (s3fs, gcsfs).
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, cast

from isotone.errors import InputError, IsotoneError, MissingExtraError

_URL = re.compile(r"[a-z][a-z0-9+.-]+://")
_FLATTENED_URL = re.compile(r"(^|/)[a-z][a-z0-9+.-]+:/")
_NUMBERS: dict[type[Exception], int] = {
    FileNotFoundError: errno.ENOENT,
    PermissionError: errno.EACCES,
}


def locate(place: str | Path) -> Path:
    """The path that a user means: on this machine, or for SCHEME://... in a store.

    Raises InputError for a URL that no installed library reads, MissingExtraError without
    universal_pathlib.
    """
    if isinstance(place, PurePath):
        if _FLATTENED_URL.search(str(place)):
            raise InputError(
                f"{place}: is a URL that became a path of this machine: what it was given to takes "
                "no URLs (docs/remote.md), or none as a pathlib.Path, only as text"
            )
        return place
    if isinstance(place, str) and not _URL.match(place):
        return Path(place)
    try:
        from upath import UPath
    except ImportError as error:
        raise MissingExtraError(str(place), "remote") from error
    try:
        whole = place.rstrip("/") if isinstance(place, str) else place
        path = UPath(whole, use_listings_cache=False)  # others write there too
        if path.protocol in ("file", "local"):
            return Path(path.path)
        _ = path.fs  # imports the store's own library
    except Exception as error:  # whatever a store's library does as it is made
        raise InputError(f"{place}: cannot be opened: {error}") from error
    return cast(Path, path)


def locate_found(place: str | Path) -> Path:
    """The same of something to read; raises InputError where a store has no such thing to give."""
    path = locate(place)
    if is_remote(path):
        try:
            with reaching(path):
                store(path).info(key(path))
        except FileNotFoundError as error:
            raise InputError(f"{path}: nothing is there ({error.strerror})") from error
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return path


def is_remote(path: Path) -> bool:
    """Whether a path is in a store."""
    return not isinstance(path, PurePath)


def store(path: Path) -> Any:  # noqa: ANN401 (fsspec.AbstractFileSystem, imported where needed)
    """The fsspec file system that a remote path is in."""
    return cast(Any, path).fs


def key(path: Path) -> str:
    """What its store calls a remote path."""
    return str(cast(Any, path).path)


@contextmanager
def reaching(path: Path) -> Iterator[None]:
    """Make OSErrors that say what and where of all that the library of a store may raise.

    fsspec says nothing of errors: s3fs lets through those of botocore (no credentials, no such
    host), and its OSErrors often have a message and no number.
    """
    try:
        yield
    except IsotoneError:
        raise
    except Exception as error:
        number = (isinstance(error, OSError) and error.errno) or _NUMBERS.get(type(error))
        said = (isinstance(error, OSError) and error.strerror) or error
        text = " ".join(str(said).split()) or type(error).__name__
        raise OSError(number or errno.EIO, text, str(path)) from error


def fingerprints(paths: Sequence[Path]) -> dict[str, str]:
    """What tells versions of remote files of one directory apart, by name; raises OSError.

    It is a digest of all that the store says of a file, its entity tag or time included. One
    request for all, so that asking often costs little.
    """
    with reaching(paths[0].parent):
        if len(paths) == 1:
            found = [store(paths[0]).info(key(paths[0]))]
        else:
            found = store(paths[0]).ls(key(paths[0].parent), detail=True)
    said = {info["name"].rsplit("/", 1)[-1]: str(sorted(info.items())) for info in found}
    return {
        path.name: hashlib.sha256(said.get(path.name, "is gone").encode()).hexdigest()
        for path in paths
    }


def stored_bytes(directory: Path) -> int:
    """What all files of a directory in a store take; one request for many. Raises OSError."""
    with reaching(directory):
        found = store(directory).find(key(directory), detail=True)
    return sum(int(info["size"]) for info in found.values())
