"""Measured points of size and quality, kept as they come in: one JSON line each.

A sweep's directory holds `points.jsonl`. A line is appended whole and synced before the next point
is begun, and a last line that a kill or a crash tore is dropped when the sweep goes on, so that no
point is ever measured twice or half. Each line says what it was measured on, and that is held
against the next run: points of two models, texts or protocols never come into one directory.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isotone.errors import InputError
from isotone.evaluation.journal import Journal, difference

POINTS_FILE = "points.jsonl"

_SCRATCH = ".scratch"
_STATISTICS = ".statistics"


@dataclass(frozen=True)
class Protocol:
    """What all points of one sweep share; names are of files, hashes tell what is in them.

    model_hash: SHA-256 over the names and BLAKE3 hashes of the weight files, and the config.
    include, exclude: as compress takes them. windows: those that were asked for.
    """

    model: str
    model_hash: str
    text: str
    text_hash: str
    context: int
    windows: int
    dtype: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    isotone: str


@dataclass(frozen=True)
class Point:
    """One compression of a model, measured.

    kind: dense (the model itself), or swept. arguments: what compress was called with.
    bits_per_weight: on disk; of the dense model: what its weights' dtype takes. perplexity and
    what follows it are None where the model gives no finite numbers, as one that has collapsed may.
    relative_distortion, output_bytes, seconds: see pipeline.summary.CompressSummary; of the dense
    model: 0, its weight files, 0. n_tokens: scored.
    """

    kind: str
    family: str
    label: str
    arguments: dict[str, Any]
    bits_per_weight: float
    perplexity: float | None
    perplexity_standard_error: float | None
    kl: float | None
    top1_agreement: float | None
    relative_distortion: float
    output_bytes: int
    seconds: float
    n_tokens: int
    protocol: Protocol
    device: str
    torch: str
    transformers: str


class Results:
    """The directory of one sweep, held by one run at a time."""

    def __init__(self, journal: Journal[Point]) -> None:
        self.directory, self._journal = journal.directory, journal

    @classmethod
    @contextmanager
    def open(cls, directory: Path, protocol: Protocol, *, overwrite: bool) -> Iterator[Results]:
        """Begin a sweep, or go on with one.

        Raises InputError where the directory holds anything else than points of this protocol
        (points of another are dropped with overwrite), and where another run is at work in it.
        """
        with Journal.open(directory, POINTS_FILE, _point, "isotone frontier") as journal:
            others = [point for point in journal.records if point.protocol != protocol]
            if others and not overwrite:
                raise InputError(
                    f"{directory}: holds points of another sweep "
                    f"({difference(others[0].protocol, protocol)}); choose another RESULTS, or "
                    "give --overwrite to drop them"
                )
            if overwrite:
                journal.clear()
            results = cls(journal)
            results.drop_scratch()
            if overwrite:
                results.drop_statistics()
            yield results

    @property
    def points(self) -> list[Point]:
        """All that is measured."""
        return self._journal.records

    @property
    def scratch(self) -> Path:
        """Where models are written for as long as they are measured."""
        return self.directory / _SCRATCH

    def drop_scratch(self) -> None:
        """Remove what is at scratch, whole or half."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    @property
    def statistics(self) -> Path:
        """Where to collect what calibrated points share, for as long as the sweep takes."""
        return self.directory / _STATISTICS

    def drop_statistics(self) -> None:
        """Remove them."""
        shutil.rmtree(self.statistics, ignore_errors=True)

    def append(self, point: Point) -> None:
        """Keep a point, for good once this returns."""
        self._journal.append(point)


def _point(record: dict[str, Any]) -> Point:
    protocol = record["protocol"]
    globs = {key: tuple(protocol[key]) for key in ("include", "exclude")}
    return Point(**{**record, "protocol": Protocol(**{**protocol, **globs})})
