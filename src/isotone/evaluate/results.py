"""Measured points of size and quality, kept as they come in: one JSON line each.

A sweep's directory holds `points.jsonl`. A line is appended whole and synced before the next point
is begun, and a last line that a kill or a crash tore is dropped when the sweep goes on, so that no
point is ever measured twice or half. Each line says what it was measured on, and that is held
against the next run: points of two models, texts or protocols never come into one directory.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from isotone.checkpoint.staging import writing
from isotone.errors import InputError

POINTS_FILE = "points.jsonl"

_SCRATCH = ".scratch"
_LINE_START = b'{"kind": '


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

    def __init__(self, directory: Path, file: BinaryIO, points: list[Point]) -> None:
        self.directory, self._file, self.points = directory, file, points

    @classmethod
    @contextmanager
    def open(cls, directory: Path, protocol: Protocol, *, overwrite: bool) -> Iterator[Results]:
        """Begin a sweep, or go on with one.

        Raises InputError where the directory holds anything else than points of this protocol
        (points of another are dropped with overwrite), and where another run is at work in it.
        """
        with writing(directory):
            _refuse_foreign(directory)
            directory.mkdir(parents=True, exist_ok=True)
            file = (directory / POINTS_FILE).open("a+b")
        with file:
            _lock(file, directory)
            with writing(directory):
                points = _take_up(file, directory, protocol, overwrite=overwrite)
            results = cls(directory, file, points)
            results.drop_scratch()
            yield results

    @property
    def scratch(self) -> Path:
        """Where to write a model for as long as it is measured."""
        return self.directory / _SCRATCH / "model"

    def drop_scratch(self) -> None:
        """Remove what is at scratch, whole or half."""
        shutil.rmtree(self.directory / _SCRATCH, ignore_errors=True)

    def append(self, point: Point) -> None:
        """Keep a point, for good once this returns."""
        line = json.dumps(asdict(point), allow_nan=False).encode() + b"\n"
        with writing(self.directory):
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        self.points.append(point)


def _refuse_foreign(directory: Path) -> None:
    if not directory.exists() or (directory / POINTS_FILE).is_file():
        return
    if not directory.is_dir() or any(directory.iterdir()):
        raise InputError(
            f"{directory}: exists, and holds no {POINTS_FILE} of isotone frontier; choose another "
            "RESULTS"
        )


def _lock(file: BinaryIO, directory: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{directory}: another isotone is at work there; wait for it") from None


def _take_up(
    file: BinaryIO, directory: Path, protocol: Protocol, *, overwrite: bool
) -> list[Point]:
    """The points that count, with the file cut down to them."""
    file.seek(0)
    points, n_bytes = _whole_points(file.read(), directory / POINTS_FILE)
    others = [point for point in points if point.protocol != protocol]
    if others and not overwrite:
        raise InputError(
            f"{directory}: holds points of another sweep "
            f"({_difference(others[0].protocol, protocol)}); choose another RESULTS, or give "
            "--overwrite to drop them"
        )
    if overwrite:
        points, n_bytes = [], 0
    file.truncate(n_bytes)
    return points


def _whole_points(content: bytes, path: Path) -> tuple[list[Point], int]:
    """The points of a file and the bytes that they take; a torn last line is not among them."""
    points: list[Point] = []
    n_bytes = 0
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        if _is_torn(line):
            break
        try:
            points.append(_point(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{path}: line {number} is no point of isotone frontier; choose another RESULTS, "
                "or take that line out"
            ) from error
        n_bytes += len(line)
    return points, n_bytes


def _is_torn(line: bytes) -> bool:
    """The start of a point, or zeros as a crash of the machine may leave them; never foreign."""
    start = line.rstrip(b"\0")[: len(_LINE_START)]
    return not line.endswith(b"\n") and _LINE_START.startswith(start)


def _point(record: dict[str, Any]) -> Point:
    protocol = record["protocol"]
    globs = {key: tuple(protocol[key]) for key in ("include", "exclude")}
    return Point(**{**record, "protocol": Protocol(**{**protocol, **globs})})


def _difference(old: Protocol, new: Protocol) -> str:
    was, now = asdict(old), asdict(new)
    changed = [key for key in was if was[key] != now[key]]
    return "; ".join(f"{key} was {_shown(was[key])}, is {_shown(now[key])}" for key in changed)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(value) or "none"
    return value[:12] + "…" if isinstance(value, str) and len(value) == 64 else str(value)
