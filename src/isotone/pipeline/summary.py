"""The figures of a compressed directory: its size, its error, and what making it took."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isotone.checkpoint.compressed.manifest import ClusteredRecord
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.files.location import is_remote, locate_found, stored_bytes
from isotone.checkpoint.opening import open_compressed


@dataclass(frozen=True)
class CompressSummary:
    """The figures of a compressed directory.

    Attributes
    ----------
    bits_per_weight : float
        All bytes that the clustered weights take on disk, times 8, divided by their number.
    n_weights : int
        The number of weights in clustered tensors.
    n_tensors : int
        The number of clustered tensors.
    n_kept : int
        The number of tensors that are stored bit for bit.
    skipped : tuple of str
        Tensors of the source that a Hugging Face model has no place for.
    left_out : dict of str to str
        Files of the source that did not go along, by name, and why: other sets of weights, other
        formats.
    n_protected : int
        The number of weights that are stored exactly.
    coverage : float
        The share of the model's dense bytes that is clustered.
    relative_distortion : float or None
        The squared error of all clustered weights, divided by the sum of their squares about the
        mean of each matrix; None if codebooks were changed since.
    source_bytes : int
        The bytes of the weight files of the model.
    output_bytes : int
        The bytes of all files that the compressed model needs.
    base_bytes : int
        How many of those are in the base (and its base) of a codebook-only directory; 0 otherwise.
    n_changed : int
        The number of tensors whose values differ from those of the base; 0 without a base.
    calibration : dict or None
        The text, the number of calibrated matrices, and the names of the others by reasons; None
        for a model that was compressed without calibration.
    seconds : float
        The time that compressing took; 0 if that is not known.
    peak_rss_bytes : int
        The largest resident memory of this process so far.
    """

    bits_per_weight: float
    n_weights: int
    n_tensors: int
    n_kept: int
    skipped: tuple[str, ...]
    left_out: dict[str, str]
    n_protected: int
    coverage: float
    relative_distortion: float | None
    source_bytes: int
    output_bytes: int
    base_bytes: int
    n_changed: int
    calibration: dict[str, Any] | None
    seconds: float
    peak_rss_bytes: int


def summarise(directory: str | Path, seconds: float = 0.0) -> CompressSummary:
    """Return the figures of a compressed directory.

    Parameters
    ----------
    directory : str or Path
        A directory that isotone wrote, or its URL.
    seconds : float
        The time that compressing took; 0 if that is not known.

    Returns
    -------
    CompressSummary
        The figures.

    Raises
    ------
    InputError
        If the directory is not isotone's.
    FormatError
        If a file is damaged.
    """
    return summary_of(open_compressed(locate_found(directory)), seconds)


def summary_of(opened: CompressedDirectory, seconds: float = 0.0) -> CompressSummary:
    """Return the figures of a compressed directory that is open.

    Parameters
    ----------
    opened : CompressedDirectory
    seconds : float
        The time that compressing took; 0 if that is not known.

    Returns
    -------
    CompressSummary
        The figures.
    """
    manifest = opened.manifest
    n_weights = sum(record.n_weights for record in manifest.clustered)
    dense = sum(r.dense_bytes for r in manifest.clustered)
    kept = [record for record in manifest.kept if record.tied_to is None]
    own_bytes, *base_bytes = [tree_bytes(layer.path) for layer in opened.layers]
    return CompressSummary(
        bits_per_weight=8 * sum(r.stored_bytes for r in manifest.clustered) / n_weights,
        n_weights=n_weights,
        n_tensors=len(manifest.clustered),
        n_kept=len(kept),
        skipped=manifest.skipped,
        left_out=manifest.arguments.get("left_out", {}),
        n_protected=sum(r.n_protected for r in manifest.clustered),
        coverage=dense / (dense + sum(r.dense_bytes for r in kept)),
        relative_distortion=relative_distortion(manifest.clustered),
        source_bytes=manifest.source_bytes,
        output_bytes=own_bytes + sum(base_bytes),
        base_bytes=sum(base_bytes),
        n_changed=len(opened.changed),
        calibration=manifest.arguments.get("calibration"),
        seconds=seconds,
        peak_rss_bytes=peak_rss_bytes(),
    )


def relative_distortion(records: Sequence[ClusteredRecord]) -> float | None:
    """Return the squared error of clustered tensors, relative to the squares about their means.

    Parameters
    ----------
    records : sequence of ClusteredRecord

    Returns
    -------
    float or None
        None where the error of one of them is not known, because its codebook was changed since.
    """
    distortion = squares = 0.0
    for record in records:
        if record.distortion is None or record.relative_distortion is None:
            return None
        distortion += record.distortion
        if record.relative_distortion:
            squares += record.distortion / record.relative_distortion
        else:
            squares += record.n_weights * record.standard_deviation**2
    return distortion / squares if squares else 0.0


def tree_bytes(directory: Path) -> int:
    """Return the bytes of all files of a directory.

    Parameters
    ----------
    directory : Path
        A directory, also one in an object store.

    Returns
    -------
    int
        The sum of the file sizes.
    """
    if is_remote(directory):
        return stored_bytes(directory)
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def peak_rss_bytes() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
