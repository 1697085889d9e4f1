"""Paths and URLs: they lead to this machine's file system, or to a store that fsspec knows.

A path in a store is a path of universal_pathlib. It has pathlib's interface without being of
pathlib's classes, so code that reads a directory need not know where the directory is. Credentials,
endpoints and retries are left to the store's own library (s3fs, gcsfs).
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
    """Return the path that a user means.

    Parameters
    ----------
    place : str or Path
        A path of this machine, or a URL of a store (`SCHEME://...`).

    Returns
    -------
    Path
        A path of this machine, or a remote path of universal_pathlib.

    Raises
    ------
    InputError
        If no installed library reads the URL, or a URL was given as a `pathlib.Path`.
    MissingExtraError
        If a URL is given and universal_pathlib is not installed.
    """
    if isinstance(place, PurePath):
        if _FLATTENED_URL.search(str(place)):
            raise InputError(
                f"{place}: is a URL that became a path of this machine; give the URL as text, not "
                "as a pathlib.Path, and to a command that takes URLs (docs/remote.md)"
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
        path = UPath(whole, use_listings_cache=False)  # because other processes write there too
        if path.protocol in ("file", "local"):
            return Path(path.path)
        _ = path.fs  # imports the store's own library, which may be missing
    except Exception as error:  # whatever a store's library raises as it is set up
        raise InputError(f"{place}: cannot be opened: {error}") from error
    return cast(Path, path)


def locate_found(place: str | Path) -> Path:
    """Return the path of something to read; in a store it must exist.

    Parameters
    ----------
    place : str or Path
        As for `locate`.

    Returns
    -------
    Path
        As from `locate`. A path of this machine is not checked.

    Raises
    ------
    InputError
        If a store has nothing there, or cannot be reached.
    """
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
    """Return whether a path is in a store.

    Parameters
    ----------
    path : Path
        A path from `locate`.

    Returns
    -------
    bool
        False for a path of this machine.
    """
    return not isinstance(path, PurePath)


def store(path: Path) -> Any:  # noqa: ANN401 (fsspec.AbstractFileSystem, imported where needed)
    """Return the fsspec file system that a remote path is in.

    Parameters
    ----------
    path : Path
        A remote path.

    Returns
    -------
    fsspec.AbstractFileSystem
        The file system.
    """
    return cast(Any, path).fs


def key(path: Path) -> str:
    """Return the name that the store has for a remote path.

    Parameters
    ----------
    path : Path
        A remote path.

    Returns
    -------
    str
        Such as `bucket/model/config.json`.
    """
    return str(cast(Any, path).path)


@contextmanager
def reaching(path: Path) -> Iterator[None]:
    """Turn whatever the library of a store raises into an OSError with a number and a file name.

    fsspec defines no errors of its own: s3fs passes those of botocore on (no credentials, no such
    host), and its OSErrors often have a message and no number.

    Parameters
    ----------
    path : Path
        The path that is used in the `with`.

    Yields
    ------
    None
        The body of the `with` uses the store.

    Raises
    ------
    OSError
        If the body raises anything but an error of isotone's.
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
    """Return what distinguishes versions of remote files.

    Parameters
    ----------
    paths : sequence of Path
        Files of one directory in a store.

    Returns
    -------
    dict of str to str
        For each file name the SHA-256 digest of all that the store says of the file, which includes
        its entity tag or its time.

    Raises
    ------
    OSError
        If the store cannot be reached.

    Notes
    -----
    Costs one request for all files.
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
    """Return the bytes of all files under a directory in a store.

    Parameters
    ----------
    directory : Path
        A remote path.

    Returns
    -------
    int
        The sum of their sizes in bytes.

    Raises
    ------
    OSError
        If the store cannot be reached.

    Notes
    -----
    Costs one request for each thousand files or so, as the store pages its listings.
    """
    with reaching(directory):
        found = store(directory).find(key(directory), detail=True)
    return sum(int(info["size"]) for info in found.values())
