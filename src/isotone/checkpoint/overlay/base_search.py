"""Finds the base of a codebook-only directory: at the recorded path, or beside the directory.

A pair that is moved or renamed together stays together, because the base is known by its digest.
Of every other directory that lies there only the end of its isotone.json is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from isotone.checkpoint.compressed.manifest import Manifest
from isotone.checkpoint.compressed.sealed_json import claimed_digest
from isotone.checkpoint.overlay.manifest import BaseReference, OverlayManifest, read_manifest
from isotone.checkpoint.source.companions import MANIFEST_FILE
from isotone.errors import FormatError

_SHOWN_DIGITS = 16


def base_path(directory: Path, base: Path) -> str:
    """Return the path from a directory to its base, as it is recorded.

    Parameters
    ----------
    directory : Path
        The codebook-only directory, which need not exist yet.
    base : Path
        Its base.

    Returns
    -------
    str
        A relative POSIX path, links resolved.
    """
    place = Path(os.path.realpath(directory.parent)) / directory.name
    return Path(os.path.relpath(os.path.realpath(base), place)).as_posix()


def find_base(directory: Path, base: BaseReference) -> tuple[Path, Manifest | OverlayManifest]:
    """Find the base of a codebook-only directory.

    Parameters
    ----------
    directory : Path
        The codebook-only directory.
    base : BaseReference
        What it records of its base.

    Returns
    -------
    path : Path
        Where the base is.
    manifest : Manifest or OverlayManifest
        What the base records.

    Raises
    ------
    FormatError
        If the base is neither at the recorded path nor beside the directory, or its manifest is
        damaged.
    """
    damaged = None
    for candidate in _candidates(directory, base):
        try:
            return candidate, read_manifest(candidate)[0]
        except FormatError as error:
            damaged = damaged or error
    raise damaged or _missing(directory, base)


def _candidates(directory: Path, base: BaseReference) -> Iterator[Path]:
    """Yield directories that claim to be the base: the recorded one, then its neighbours."""
    recorded = _recorded(directory, base)
    if claimed_digest(recorded / MANIFEST_FILE) == base.digest:
        yield recorded
    parent = Path(os.path.realpath(directory)).parent
    for name in _listed(parent):
        hidden = name.startswith(".") or name.endswith(".partial")  # unfinished, or being replaced
        if not hidden and claimed_digest(parent / name / MANIFEST_FILE) == base.digest:
            yield parent / name


def _missing(directory: Path, base: BaseReference) -> FormatError:
    recorded, own = _recorded(directory, base), Path(os.path.realpath(directory))
    return FormatError(
        f"{directory}: holds only changed codebooks and needs its base, with digest "
        f"{base.digest[:_SHOWN_DIGITS]}; {_found(recorded)}; put the base there or beside "
        f"{own.name} (isotone heal --full writes a directory that needs none)"
    )


def _recorded(directory: Path, base: BaseReference) -> Path:
    return Path(os.path.realpath(directory / base.path))


def _found(directory: Path) -> str:
    """Describe what is there in place of a base, for the message."""
    manifest = directory / MANIFEST_FILE
    digest = claimed_digest(manifest)
    if digest is not None:
        return f"{directory} has digest {digest[:_SHOWN_DIGITS]}"
    try:
        if manifest.exists():
            return f"{manifest} is damaged"
        what = f"has no {MANIFEST_FILE}" if directory.is_dir() else "is not there"
        return f"{directory} {what}"
    except OSError as error:
        return f"{directory}: {error.strerror}"


def _listed(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208 (also sorts names that are not text)
    except OSError:
        return []
