"""Describe what a compressed directory holds, tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isotone.checkpoint.compressed.manifest import ClusteredRecord, KeptRecord
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.files.location import locate_found
from isotone.checkpoint.opening import open_compressed
from isotone.core.values import Values
from isotone.errors import InputError
from isotone.pipeline.movement import Movement
from isotone.pipeline.summary import CompressSummary, summary_of


@dataclass(frozen=True)
class ProtectedWeight:
    """A protected weight: an outlier that is stored exactly.

    Attributes
    ----------
    index : tuple of int
        Its position in the tensor, one number for each axis.
    value : float
        Its value.
    deviations : float
        Its distance from the mean of the tensor's weights, in their standard deviations.
    """

    index: tuple[int, ...]
    value: float
    deviations: float


@dataclass(frozen=True)
class TensorReport:
    """A clustered tensor.

    Attributes
    ----------
    record : ClusteredRecord
        What the manifest records of the tensor: shape, `k`, sizes and errors.
    protected : tuple of ProtectedWeight
        Protected weights, those farthest from the mean first; at most as many as were asked for.
    movement : Movement or None
        How far its centroids have moved from those of the base; None if the directory has no base.
    """

    record: ClusteredRecord
    protected: tuple[ProtectedWeight, ...]
    movement: Movement | None


@dataclass(frozen=True)
class Inspection:
    """A whole directory.

    Attributes
    ----------
    clustered : tuple of TensorReport
        The tensors that are clustered.
    kept : tuple of KeptRecord
        What the manifest records of the tensors that are stored bit for bit.
    base : Path or None
        The base of a codebook-only directory; None for a complete one.
    summary : CompressSummary
        The totals, without the time that compressing took.
    """

    clustered: tuple[TensorReport, ...]
    kept: tuple[KeptRecord, ...]
    base: Path | None
    summary: CompressSummary


def inspect(directory: str | Path, *, n_protected: int = 1) -> Inspection:
    """Describe a directory that isotone wrote. No ranks are decoded.

    Parameters
    ----------
    directory : str or Path
        The directory, complete or codebook-only, or the URL of a complete one.
    n_protected : int
        The number of protected weights to name for each tensor, at most.

    Returns
    -------
    Inspection
        All tensors of the directory.

    Raises
    ------
    InputError
        If the directory is not isotone's.
    FormatError
        If a file is damaged.

    Examples
    --------
    >>> import isotone
    >>> for tensor in isotone.inspect("clustered").clustered:  # doctest: +SKIP
    ...     print(tensor.record.name, tensor.record.bits_per_weight)
    """
    opened = open_compressed(locate_found(directory))
    reports = tuple(_report(opened, record, n_protected) for record in opened.manifest.clustered)
    base = None if opened.base is None else opened.base.path
    return Inspection(reports, opened.manifest.kept, base, summary_of(opened))


def inspect_tensor(directory: str | Path, name: str, *, n_protected: int = 20) -> TensorReport:
    """Describe one clustered tensor of a directory.

    Parameters
    ----------
    directory : str or Path
        The directory, complete or codebook-only, or the URL of a complete one.
    name : str
        The name of the tensor, with or without `.weight`.
    n_protected : int
        The number of protected weights to name, at most.

    Returns
    -------
    TensorReport
        The tensor.

    Raises
    ------
    InputError
        If the directory is not isotone's, or has no such clustered tensor.
    FormatError
        If a file is damaged.
    """
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
