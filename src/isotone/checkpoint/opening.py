"""Opens a directory that isotone wrote, complete or codebook-only: the one entry for all callers.

A codebook-only directory (an overlay) holds new values of some tensors and needs the directory that
it names as its base, which may be an overlay itself.
"""

from __future__ import annotations

from pathlib import Path

from isotone.checkpoint.compressed.check import check_config, open_shard
from isotone.checkpoint.compressed.manifest import Manifest
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.files.location import is_remote
from isotone.checkpoint.overlay.base_search import find_base
from isotone.checkpoint.overlay.check import check_overlay
from isotone.checkpoint.overlay.manifest import WEIGHTS_FILE, OverlayManifest, read_manifest
from isotone.checkpoint.source.companions import MANIFEST_FILE
from isotone.errors import FormatError, InputError

_MOST_LAYERS = 16  # codebook-only directories, one over the other


def open_compressed(path: Path) -> CompressedDirectory:
    """Open and check a directory that isotone wrote, together with its base if it has one.

    Parameters
    ----------
    path : Path
        The directory, on this machine or, if it is complete, in a store.

    Returns
    -------
    CompressedDirectory
        The open directory; a codebook-only one shows itself and its base as one.

    Raises
    ------
    InputError
        If isotone did not write the directory.
    FormatError
        If the directory or its base is damaged, or the base is not found.

    Notes
    -----
    Reads the manifest and the headers of all shards, and no weights.
    """
    if not (path / MANIFEST_FILE).is_file():
        what = "has no isotone.json" if path.is_dir() else "no such directory"
        raise InputError(f"{path}: {what}; expected a directory that isotone compress wrote")
    return _open(path, *read_manifest(path), n_above=0)


def _open(
    path: Path, manifest: Manifest | OverlayManifest, digest: str, *, n_above: int
) -> CompressedDirectory:
    """Open a directory that `n_above` codebook-only directories lie over."""
    if isinstance(manifest, OverlayManifest):
        return _open_overlay(path, manifest, digest, n_above=n_above)
    return CompressedDirectory.open_complete(path, manifest, digest)


def _open_overlay(
    path: Path, manifest: OverlayManifest, digest: str, *, n_above: int
) -> CompressedDirectory:
    check_config(path)
    sizes = {record.name: record.n_bytes for record in manifest.files}
    shard = open_shard(path / WEIGHTS_FILE, sizes.get(WEIGHTS_FILE))
    if is_remote(path):
        raise FormatError(
            f"{path}: holds only changed codebooks, which are read from this machine's disks; "
            "fetch it and its base first"
        )
    if n_above == _MOST_LAYERS:
        raise FormatError(f"{path}: is the base of {n_above} others, and has a base itself")
    found = find_base(path, manifest.base)
    base = _open(*found, manifest.base.digest, n_above=n_above + 1)
    check_overlay(shard, manifest.changed, base.manifest.stored, base.array_shapes)
    changed = (record.name for record in manifest.changed)
    return base.overlaid(path, manifest.over(base.manifest), digest, changed, shard)
