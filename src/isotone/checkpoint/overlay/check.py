"""The arrays of a codebook-only directory: each in the place of one of its base's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from isotone.checkpoint.compressed.manifest import ClusteredRecord, Record
from isotone.checkpoint.files.safetensors_reader import SafetensorsFile
from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.overlay.manifest import ChangedRecord
from isotone.codec.arrays import CHANGEABLE
from isotone.errors import FormatError


def check_changed_arrays(
    shard: SafetensorsFile,
    changed: Iterable[ChangedRecord],
    stored: Iterable[Record],
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Raise FormatError where a file holds anything but what its directory changes of its base.

    changed: what that records. stored: what the base records. shapes: of the base's arrays.
    """
    records = {record.name: record for record in stored}
    left = {array.name: array for array in shard.tensors}
    for change in changed:
        if change.name not in records:
            raise FormatError(f"{shard.path}: changes {change.name}, which its base does not store")
        dtypes = _changeable(records[change.name])
        own = [left.pop(name) for name in dtypes if name in left]
        for array in own:
            _check_array(shard, array, dtypes[array.name], shapes.get(array.name))
        n_bytes = sum(array.n_bytes for array in own)
        if not own or n_bytes != change.stored_bytes:
            raise FormatError(
                f"{shard.path}: holds {n_bytes} bytes of {change.name}; the manifest records "
                f"{change.stored_bytes}"
            )
    if left:
        raise FormatError(f"{shard.path}: holds {sorted(left)[:3]}, which nothing records")


def _changeable(record: Record) -> dict[str, tuple[str, ...]]:
    """What a change of a tensor may bring: names of arrays, and the dtypes that each may have."""
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
        raise FormatError(f"{shard.path}: {array.name} takes the place of nothing in its base")
    if array.dtype not in dtypes or array.shape != shape:
        raise FormatError(
            f"{shard.path}: {array.name} is {array.dtype} {list(array.shape)}; expected "
            f"{' or '.join(dtypes)} {list(shape)}, as in its base"
        )
