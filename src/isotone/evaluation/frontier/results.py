"""Measured points of size and quality, kept as they come in: one JSON object on each line.

A sweep's directory holds `points.jsonl` (see `isotone.evaluation.journal`). Each line says what it
was measured on, and that is compared with the next run's: points of two models, texts or protocols
never come into one directory.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isotone.errors import InputError
from isotone.evaluation.journal import Journal
from isotone.evaluation.provenance import difference

POINTS_FILE = "points.jsonl"

_SCRATCH = ".scratch"
_STATISTICS = ".statistics"


@dataclass(frozen=True)
class FrontierProtocol:
    """What all points of one sweep share; names are of files, hashes identify their content.

    Attributes
    ----------
    model : str
        The name of the model's directory, or its hub id.
    model_hash : str
        SHA-256 over the names and BLAKE3 hashes of the weight files, and the config.
    text : str
        The name of the text.
    text_hash : str
        SHA-256 of the text.
    context : int
        The number of tokens in a window.
    windows : int
        The number of windows that was asked for.
    dtype : str
        The dtype in which models are run.
    include : tuple of str
        Globs of the tensors to cluster, as `isotone.compress` takes them.
    exclude : tuple of str
        Globs of the tensors to keep, likewise.
    isotone : str
        The version of isotone.
    bos : tuple of str
        The tokens that every window begins with, as the tokenizer writes them. Points of versions
        that knew no such tokens had none.
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
    bos: tuple[str, ...] = ()


@dataclass(frozen=True)
class FrontierPoint:
    """One compression of a model, measured.

    Perplexity and the figures after it are None where the model gives no finite numbers, as one
    that has collapsed may.

    Attributes
    ----------
    kind : str
        `dense` for the model itself, `swept` for a compression of it.
    family : str
        The line of the chart that the point belongs to.
    label : str
        The name of the point on that line.
    arguments : dict
        What `isotone.compress` was called with.
    bits_per_weight : float
        The size on disk; of the dense model, the size of its weights' dtype.
    perplexity, perplexity_standard_error : float, optional
        The perplexity on the text.
    kl : float, optional
        The mean of KL(dense || compressed) over tokens, in nats.
    top1_agreement : float, optional
        The share of tokens where both rank the same token first.
    relative_distortion : float
        The squared error of the clustered weights, over their squares about the means; 0 for the
        dense model.
    output_bytes : int
        The size of all files that the model needs; of the dense model, of its weight files.
    seconds : float
        The duration of compressing; 0 for the dense model.
    n_tokens : int
        The number of scored tokens.
    protocol : FrontierProtocol
        What the point shares with the others of its sweep.
    device : str
        Where the model was run, as torch names it.
    torch : str
        The version of torch.
    transformers : str
        The version of transformers.
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
    protocol: FrontierProtocol
    device: str
    torch: str
    transformers: str


class FrontierResults:
    """The directory of one sweep, held by one run at a time.

    Parameters
    ----------
    journal : Journal
        The points, open and locked.
    """

    def __init__(self, journal: Journal[FrontierPoint]) -> None:
        self.directory, self._journal = journal.directory, journal

    @classmethod
    @contextmanager
    def open(
        cls, directory: Path, protocol: FrontierProtocol, *, overwrite: bool
    ) -> Iterator[FrontierResults]:
        """Begin a sweep, or continue one.

        Parameters
        ----------
        directory : Path
            The directory of results; it is created where it does not exist.
        protocol : FrontierProtocol
            What the points are measured on.
        overwrite : bool
            Whether all points that the directory holds are dropped first.

        Yields
        ------
        FrontierResults
            The directory, locked until the context ends.

        Raises
        ------
        InputError
            If the directory holds anything else than points of this protocol, or if another run is
            at work in it.
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
    def points(self) -> list[FrontierPoint]:
        """All points that are measured."""
        return self._journal.records

    @property
    def scratch(self) -> Path:
        """The directory where models are written for as long as they are measured."""
        return self.directory / _SCRATCH

    def drop_scratch(self) -> None:
        """Remove what is in `scratch`, whole or half written."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    @property
    def statistics(self) -> Path:
        """The directory of the statistics that calibrated points share while the sweep runs."""
        return self.directory / _STATISTICS

    def drop_statistics(self) -> None:
        """Remove the statistics."""
        shutil.rmtree(self.statistics, ignore_errors=True)

    def append(self, point: FrontierPoint) -> None:
        """Write a point; it is on disk when this returns.

        Parameters
        ----------
        point : FrontierPoint
            The point.
        """
        self._journal.append(point)


def _point(record: dict[str, Any]) -> FrontierPoint:
    protocol = record["protocol"]
    lists = {key: tuple(v) for key, v in protocol.items() if isinstance(v, list)}
    return FrontierPoint(**{**record, "protocol": FrontierProtocol(**{**protocol, **lists})})
