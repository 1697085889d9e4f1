"""Checks that each array of a codebook-only directory replaces one of its base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from isotone.checkpoint.compressed.manifest import ClusteredRecord, Record
from isotone.checkpoint.files.safetensors_reader import SafetensorsFile
from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.overlay.manifest import OverlayRecord
from isotone.codec.arrays import CHANGEABLE
from isotone.errors import FormatError


def check_overlay(
    shard: SafetensorsFile,
    changed: Iterable[OverlayRecord],
    stored: Iterable[Record],
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Check that a file holds exactly what its directory changes of its base.

    Parameters
    ----------
    shard : SafetensorsFile
        The file of the codebook-only directory that holds arrays.
    changed : iterable of OverlayRecord
        What the codebook-only directory records.
    stored : iterable of ClusteredRecord or KeptRecord
        What the base records.
    shapes : mapping of str to tuple of int
        The shapes of the base's arrays, by name.

    Raises
    ------
    FormatError
        If an array is missing, is not recorded, or does not fit the array that it replaces.
    """
    records = {record.name: record for record in stored}
    left = {array.name: array for array in shard.tensors}
    for new in changed:
        if new.name not in records:
            raise FormatError(f"{shard.path}: changes {new.name}, which its base does not store")
        dtypes = _changeable(records[new.name])
        own = [left.pop(name) for name in dtypes if name in left]
        for array in own:
            _check_array(shard, array, dtypes[array.name], shapes.get(array.name))
        n_bytes = sum(array.n_bytes for array in own)
        if not own or n_bytes != new.stored_bytes:
            raise FormatError(
                f"{shard.path}: holds {n_bytes} bytes of {new.name}; the manifest records "
                f"{new.stored_bytes}"
            )
    if left:
        raise FormatError(f"{shard.path}: holds {sorted(left)[:3]}, which nothing records")


def _changeable(record: Record) -> dict[str, tuple[str, ...]]:
    """Return the arrays of a tensor that may be replaced, each with the dtypes that it may have."""
    if not isinstance(record, ClusteredRecord):
        return {record.name: (record.dtype,)}
    return {record.name + suffix: dtypes for suffix, dtypes in CHANGEABLE.items()}


def _check_array(
    shard: SafetensorsFile,
    array: TensorInfo,
    dtypes: tuple[str, ...],
    shape: tuple[int, ...] | None,
) -> None:
    if shape is None:
        raise FormatError(f"{shard.path}: {array.name} replaces no array of its base")
    if array.dtype not in dtypes or array.shape != shape:
        raise FormatError(
            f"{shard.path}: {array.name} is {array.dtype} {list(array.shape)}; expected "
            f"{' or '.join(dtypes)} {list(shape)}, as in its base"
        )
