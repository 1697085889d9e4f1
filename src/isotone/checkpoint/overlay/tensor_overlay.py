"""New values for one tensor, held against the tensor; its ranks stay as they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from isotone.checkpoint.compressed.decode import decoded_hash
from isotone.checkpoint.compressed.manifest import KeptRecord, Record
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.overlay.manifest import OverlayRecord
from isotone.codec.arrays import CODEBOOK, COLUMN_SCALE, ROW_SCALE, StoredArray, scale_arrays
from isotone.core.scales.codes import Scale
from isotone.core.values import Values, is_ascending
from isotone.errors import InputError

_SCALE_DTYPES = (np.uint8, np.float16, np.float32)


@dataclass(frozen=True)
class TensorOverlay:
    """New values for one tensor of a directory; whatever is None stays as it is.

    Attributes
    ----------
    name : str
        The tensor, as its record names it.
    codebook : float32 array, `[k]` or `[matrices, k]`, optional
        Of the shape of the present codebook; finite and strictly ascending.
    row_scale, column_scale : uint8, float16 or float32 array, optional
        As many scales as the tensor has now (it must have some): in the present shape, flattened,
        or `[matrices, scales of each]`. uint8 codes, or positive numbers.
    kept : bytes, optional
        Only for a tensor that was not clustered: all of its little-endian bytes, in the recorded
        dtype and shape.
    """

    name: str
    codebook: NDArray[np.float32] | None = None
    row_scale: Scale | None = None
    column_scale: Scale | None = None
    kept: bytes | None = None


@dataclass(frozen=True)
class FittedOverlay:
    """New values that fit their tensor.

    Attributes
    ----------
    record : OverlayRecord
        What is recorded of them.
    arrays : dict of TensorInfo to array
        The new arrays as they are stored.
    """

    record: OverlayRecord
    arrays: dict[TensorInfo, NDArray[Any]]


def fit_overlay(
    overlay: TensorOverlay, directory: CompressedDirectory, record: Record
) -> FittedOverlay:
    """Check new values against their tensor, and hash the dense bytes that they stand for.

    Parameters
    ----------
    overlay : TensorOverlay
        The new values.
    directory : CompressedDirectory
        The open directory.
    record : ClusteredRecord or KeptRecord
        What the directory records of the tensor.

    Returns
    -------
    FittedOverlay
        What is to be stored and recorded.

    Raises
    ------
    InputError
        If the values do not fit; the message names the tensor.

    Notes
    -----
    Decodes the tensor. Memory is that of one chunk.
    """
    if isinstance(record, KeptRecord):
        return _fit_kept(overlay, record)
    reader = directory.packed(record)
    values = _replaced(directory.values(record, reader), overlay)
    found = {CODEBOOK: StoredArray("F32", values.codebook), **scale_arrays(values)}
    given = {
        CODEBOOK: overlay.codebook,
        ROW_SCALE: overlay.row_scale,
        COLUMN_SCALE: overlay.column_scale,
    }
    arrays = {
        TensorInfo(record.name + suffix, stored.tag, stored.array.shape): stored.array
        for suffix, stored in found.items()
        if given[suffix] is not None
    }
    return _fitted(record.name, arrays, decoded_hash(reader, values))


def _fitted(name: str, arrays: dict[TensorInfo, NDArray[Any]], new_hash: str) -> FittedOverlay:
    n_bytes = sum(array.n_bytes for array in arrays)
    return FittedOverlay(OverlayRecord(name, n_bytes, new_hash), arrays)


def _fit_kept(overlay: TensorOverlay, record: KeptRecord) -> FittedOverlay:
    _refuse(overlay, overlay.codebook is not None, "was not clustered, and a codebook was given")
    scaled = overlay.row_scale is not None or overlay.column_scale is not None
    _refuse(overlay, scaled, "was not clustered, and scales were given")
    data = np.frombuffer(overlay.kept or b"", np.uint8)
    _refuse(
        overlay,
        len(data) != record.dense_bytes,
        f"{len(data)} bytes were given; expected {record.dense_bytes}, {record.dtype} "
        f"{list(record.shape)}",
    )
    array = TensorInfo(record.name, record.dtype, record.shape)
    return _fitted(record.name, {array: data}, blake3(data.data).hexdigest())


def _replaced(present: Values, overlay: TensorOverlay) -> Values:
    """Return the values of a tensor with the new ones in their place, checked."""
    kept = overlay.kept is not None
    _refuse(overlay, kept, "is clustered, and the bytes of a kept tensor were given")
    given = (overlay.codebook, overlay.row_scale, overlay.column_scale)
    _refuse(overlay, all(each is None for each in given), "no new values were given")
    values = present
    if overlay.codebook is not None:
        try:
            values = values.with_codebook(np.ascontiguousarray(overlay.codebook))
        except InputError as error:
            raise InputError(f"{overlay.name}: {error}") from error
        _refuse(
            overlay, not is_ascending(values.codebook), "a codebook was given that does not ascend"
        )
    n = present.n_matrices
    return replace(
        values,
        row_scale=_scale(overlay, present.row_scale, overlay.row_scale, n, "row"),
        column_scale=_scale(overlay, present.column_scale, overlay.column_scale, n, "column"),
    )


def _scale(
    overlay: TensorOverlay, present: Scale | None, given: Scale | None, n_matrices: int, side: str
) -> Scale | None:
    if given is None:
        return present
    if present is None:
        raise InputError(
            f"{overlay.name}: {side} scales were given, and it was clustered without any"
        )
    shapes = {present.shape, (present.size,), (n_matrices, present.size // n_matrices)}
    _refuse(
        overlay,
        given.shape not in shapes or given.dtype not in _SCALE_DTYPES,
        f"{side} scales of shape {given.shape} and dtype {given.dtype} were given; expected "
        f"{present.shape} in uint8, float16 or float32",
    )
    numbers = given.dtype != np.uint8
    _refuse(
        overlay,
        numbers and not (np.isfinite(given) & (given > 0)).all(),
        f"a {side} scale was given that is not positive and finite",
    )
    scale: NDArray[Any] = np.ascontiguousarray(given)
    return scale.reshape(present.shape)


def _refuse(overlay: TensorOverlay, condition: object, what: str) -> None:
    if condition:
        raise InputError(f"{overlay.name}: {what}")
