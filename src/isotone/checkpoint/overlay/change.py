"""What takes the place of the values of one tensor, its assignments staying as they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from isotone.checkpoint.compressed.decode import hash_with
from isotone.checkpoint.compressed.manifest import KeptRecord, Record
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.overlay.manifest import ChangedRecord
from isotone.codec.arrays import CODEBOOK, COLUMN_SCALE, ROW_SCALE, StoredArray, scale_arrays
from isotone.core.scales.codes import Scale
from isotone.core.values import Values, is_ascending
from isotone.errors import InputError

_SCALE_DTYPES = (np.uint8, np.float16, np.float32)


@dataclass(frozen=True)
class Change:
    """New values of one tensor of a directory; what is None stays as it is.

    name: of the tensor, as its record has it.
    codebook: float32, of the shape of the present one: [k] or [matrices, k]; finite, strictly
        ascending.
    row_scale, column_scale: as many factors as the present ones, which must be there: in their
        shape, or flattened, or [matrices, factors of each]. uint8 codes, or positive float16 or
        float32.
    kept: for a tensor that was not clustered, and for nothing else: all of its bytes,
        little-endian, in the recorded dtype and shape.
    """

    name: str
    codebook: NDArray[np.float32] | None = None
    row_scale: Scale | None = None
    column_scale: Scale | None = None
    kept: bytes | None = None


@dataclass(frozen=True)
class Changed:
    """A change that fits its tensor.

    record: what is recorded of it. arrays: the new ones.
    """

    record: ChangedRecord
    arrays: dict[TensorInfo, NDArray[Any]]

    @classmethod
    def of(cls, name: str, arrays: dict[TensorInfo, NDArray[Any]], decoded_hash: str) -> Self:
        """Of the new arrays of a tensor, and the hash of the dense bytes that it becomes."""
        n_bytes = sum(array.n_bytes for array in arrays)
        return cls(ChangedRecord(name, n_bytes, decoded_hash), arrays)


def fitted(change: Change, directory: CompressedDirectory, record: Record) -> Changed:
    """Hold a change against its tensor; raises InputError, naming it, where it does not fit.

    Cost: decodes the tensor; memory is that of one chunk.
    """
    if isinstance(record, KeptRecord):
        return _fitted_kept(change, record)
    reader = directory.packed(record)
    values = _with_change(directory.values(record, reader), change)
    found = {CODEBOOK: StoredArray("F32", values.codebook), **scale_arrays(values)}
    given = {
        CODEBOOK: change.codebook,
        ROW_SCALE: change.row_scale,
        COLUMN_SCALE: change.column_scale,
    }
    arrays = {
        TensorInfo(record.name + suffix, stored.tag, stored.array.shape): stored.array
        for suffix, stored in found.items()
        if given[suffix] is not None
    }
    return Changed.of(record.name, arrays, hash_with(reader, values))


def _fitted_kept(change: Change, record: KeptRecord) -> Changed:
    _refuse(change, change.codebook is not None, "was not clustered, and a codebook was given")
    scaled = change.row_scale is not None or change.column_scale is not None
    _refuse(change, scaled, "was not clustered, and factors were given")
    data = np.frombuffer(change.kept or b"", np.uint8)
    _refuse(
        change,
        len(data) != record.dense_bytes,
        f"{len(data)} bytes were given; expected {record.dense_bytes}, {record.dtype} "
        f"{list(record.shape)}",
    )
    array = TensorInfo(record.name, record.dtype, record.shape)
    return Changed.of(record.name, {array: data}, blake3(data.data).hexdigest())


def _with_change(present: Values, change: Change) -> Values:
    """The tensor with the new values, checked."""
    _refuse(change, change.kept is not None, "is clustered, and the bytes of a kept one were given")
    nothing = change.codebook is None and change.row_scale is None and change.column_scale is None
    _refuse(change, nothing, "nothing was given to change it to")
    values = present
    if change.codebook is not None:
        try:
            values = values.with_codebook(np.ascontiguousarray(change.codebook))
        except InputError as error:
            raise InputError(f"{change.name}: {error}") from error
        _refuse(
            change, not is_ascending(values.codebook), "a codebook was given that does not ascend"
        )
    n = present.n_matrices
    return replace(
        values,
        row_scale=_scale(change, present.row_scale, change.row_scale, n, "row"),
        column_scale=_scale(change, present.column_scale, change.column_scale, n, "column"),
    )


def _scale(
    change: Change, present: Scale | None, given: Scale | None, n_matrices: int, side: str
) -> Scale | None:
    if given is None:
        return present
    if present is None:
        raise InputError(
            f"{change.name}: {side} factors were given, and it was clustered without any"
        )
    shapes = {present.shape, (present.size,), (n_matrices, present.size // n_matrices)}
    _refuse(
        change,
        given.shape not in shapes or given.dtype not in _SCALE_DTYPES,
        f"{side} factors of shape {given.shape} and dtype {given.dtype} were given; expected "
        f"{present.shape} in uint8, float16 or float32",
    )
    numbers = given.dtype != np.uint8
    _refuse(
        change,
        numbers and not (np.isfinite(given) & (given > 0)).all(),
        f"a {side} factor was given that is not positive and finite",
    )
    factors: NDArray[Any] = np.ascontiguousarray(given)
    return factors.reshape(present.shape)


def _refuse(change: Change, condition: object, what: str) -> None:
    if condition:
        raise InputError(f"{change.name}: {what}")
