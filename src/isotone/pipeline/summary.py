"""What compressing a model came to."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

from isotone.checkpoint.manifest import Manifest


@dataclass(frozen=True)
class CompressSummary:
    """What compressing a model came to.

    bits_per_weight: all bytes that the clustered weights take on disk, times 8, by their number.
    relative_distortion: squared error of all clustered weights over their squares about the means.
    coverage: the share of the model's dense bytes that is clustered. skipped: see Manifest.
    """

    bits_per_weight: float
    n_weights: int
    n_tensors: int
    n_kept: int
    skipped: tuple[str, ...]
    n_protected: int
    coverage: float
    relative_distortion: float
    source_bytes: int
    output_bytes: int
    seconds: float
    peak_rss_bytes: int


def summarise(directory: Path, seconds: float = 0.0) -> CompressSummary:
    """Totals of a compressed directory; seconds: what making it took, 0 where that is unknown."""
    manifest = Manifest.read(directory)
    n_weights = sum(record.n_weights for record in manifest.clustered)
    squares = sum(
        record.distortion / record.relative_distortion
        if record.relative_distortion
        else record.n_weights * record.standard_deviation**2
        for record in manifest.clustered
    )
    distortion = sum(record.distortion for record in manifest.clustered)
    dense = sum(r.dense_bytes for r in manifest.clustered)
    kept = [record for record in manifest.kept if record.tied_to is None]
    return CompressSummary(
        bits_per_weight=8 * sum(r.stored_bytes for r in manifest.clustered) / n_weights,
        n_weights=n_weights,
        n_tensors=len(manifest.clustered),
        n_kept=len(kept),
        skipped=manifest.skipped,
        n_protected=sum(r.n_protected for r in manifest.clustered),
        coverage=dense / (dense + sum(r.dense_bytes for r in kept)),
        relative_distortion=distortion / squares if squares else 0.0,
        source_bytes=manifest.source_bytes,
        output_bytes=sum(p.stat().st_size for p in directory.rglob("*") if p.is_file()),
        seconds=seconds,
        peak_rss_bytes=peak_rss_bytes(),
    )


def peak_rss_bytes() -> int:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
