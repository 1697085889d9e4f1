"""What a compressed directory holds, tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isotone.checkpoint.compressed.manifest import ClusteredRecord, KeptRecord
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.files.location import locate_found
from isotone.checkpoint.opening import open_compressed
from isotone.core.movement import Movement
from isotone.core.values import Values
from isotone.errors import InputError


@dataclass(frozen=True)
class ProtectedWeight:
    """A weight stored exactly. deviations: standard deviations of its tensor from the mean."""

    index: tuple[int, ...]
    value: float
    deviations: float


@dataclass(frozen=True)
class TensorReport:
    """A clustered tensor and its protected weights, the farthest out first.

    movement: from the codebook of the base, None where there is no base.
    """

    record: ClusteredRecord
    protected: tuple[ProtectedWeight, ...]
    movement: Movement | None


@dataclass(frozen=True)
class Inspection:
    """A whole directory. base: that of a codebook-only one."""

    clustered: tuple[TensorReport, ...]
    kept: tuple[KeptRecord, ...]
    base: Path | None


def inspect(directory: str | Path, *, n_protected: int = 1) -> Inspection:
    """Describe a directory: its records, and the n_protected weights farthest out of each tensor.

    Decodes no ranks. Raises InputError and FormatError.
    """
    opened = open_compressed(locate_found(directory))
    reports = tuple(_report(opened, record, n_protected) for record in opened.manifest.clustered)
    base = None if opened.base is None else opened.base.path
    return Inspection(reports, opened.manifest.kept, base)


def inspect_tensor(directory: str | Path, name: str, *, n_protected: int = 20) -> TensorReport:
    """Describe one tensor; raises InputError where it is not among the clustered ones."""
    opened = open_compressed(locate_found(directory))
    for record in opened.manifest.clustered:
        if name in (record.name, record.name.removesuffix(".weight")):
            return _report(opened, record, n_protected)
    raise InputError(
        f"{name}: no such clustered tensor in {directory}; for example "
        f"{opened.manifest.clustered[0].name}"
    )


def _report(opened: CompressedDirectory, record: ClusteredRecord, n_protected: int) -> TensorReport:
    reader = opened.packed(record)
    tensor = opened.values(record, reader)
    movement = None
    if opened.base is not None:
        movement = Movement(opened.base.values(record, reader).codebook, tensor.codebook)
    return TensorReport(record, _farthest(tensor, record, n_protected), movement)


def _farthest(tensor: Values, record: ClusteredRecord, n: int) -> tuple[ProtectedWeight, ...]:
    values = tensor.float_format.upcast(tensor.protected_value).astype(np.float64)
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
