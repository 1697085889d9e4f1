"""What a compressed directory holds, tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isotone.checkpoint.compressed_directory import CompressedDirectory
from isotone.checkpoint.manifest import ClusteredRecord, KeptRecord
from isotone.errors import InputError


@dataclass(frozen=True)
class ProtectedWeight:
    """A weight stored exactly. deviations: standard deviations of its tensor from the mean."""

    index: tuple[int, ...]
    value: float
    deviations: float


@dataclass(frozen=True)
class TensorReport:
    """A clustered tensor and its protected weights, the farthest out first."""

    record: ClusteredRecord
    protected: tuple[ProtectedWeight, ...]


@dataclass(frozen=True)
class Inspection:
    """A whole directory."""

    clustered: tuple[TensorReport, ...]
    kept: tuple[KeptRecord, ...]


def inspect(directory: str | Path, *, n_protected: int = 1) -> Inspection:
    """Describe a directory: its records, and the n_protected weights farthest out of each tensor.

    Decodes no ranks. Raises InputError and FormatError.
    """
    opened = CompressedDirectory.open(Path(directory))
    reports = tuple(
        TensorReport(record, _farthest(opened, record, n_protected))
        for record in opened.manifest.clustered
    )
    return Inspection(reports, opened.manifest.kept)


def inspect_tensor(directory: str | Path, name: str, *, n_protected: int = 20) -> TensorReport:
    """Describe one tensor; raises InputError where it is not among the clustered ones."""
    opened = CompressedDirectory.open(Path(directory))
    for record in opened.manifest.clustered:
        if name in (record.name, record.name.removesuffix(".weight")):
            return TensorReport(record, _farthest(opened, record, n_protected))
    raise InputError(
        f"{name}: no such clustered tensor in {directory}; for example "
        f"{opened.manifest.clustered[0].name}"
    )


def _farthest(
    opened: CompressedDirectory, record: ClusteredRecord, n: int
) -> tuple[ProtectedWeight, ...]:
    tensor = opened.values(record, opened.packed(record))
    values = tensor.float_format.widen(tensor.protected_value).astype(np.float64)
    deviations = (values - record.mean) / (record.standard_deviation or 1.0)
    order = np.argsort(-np.abs(deviations), kind="stable")[:n]
    return tuple(
        ProtectedWeight(
            tuple(int(i) for i in np.unravel_index(tensor.protected_index[at], tensor.shape)),
            float(values[at]),
            float(deviations[at]),
        )
        for at in order
    )
