"""A clustered tensor as named arrays, and back.

For a tensor X the arrays are X_packed, X_codebook and, where used, X_row_scale, X_column_scale,
X_protected_index and X_protected_value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isotone.codec.outlier_index import decode_positions, encode_positions
from isotone.codec.packed import ALIGNMENT, MAX_AXES, PackedLayout, PackedReader, encode_chunk
from isotone.core.clustered_tensor import ClusteredTensor
from isotone.core.float_format import Bits, FloatFormat
from isotone.core.scales.codes import Scale
from isotone.core.values import Values, is_ascending
from isotone.errors import FormatError, InputError

PACKED = "_packed"
CODEBOOK = "_codebook"
ROW_SCALE = "_row_scale"
COLUMN_SCALE = "_column_scale"
PROTECTED_INDEX = "_protected_index"
PROTECTED_VALUE = "_protected_value"
SUFFIXES = (PACKED, CODEBOOK, ROW_SCALE, COLUMN_SCALE, PROTECTED_INDEX, PROTECTED_VALUE)


_SCALE_DTYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype("u1"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
}
_SCALE_TAGS = {dtype: tag for tag, dtype in _SCALE_DTYPES.items()}

CHANGEABLE = {
    CODEBOOK: ("F32",),
    ROW_SCALE: tuple(_SCALE_DTYPES),
    COLUMN_SCALE: tuple(_SCALE_DTYPES),
}
"""The arrays that hold values, which may change while the assignments stay; their dtypes."""


class StoredArray(NamedTuple):
    """An array as safetensors stores it: dtype tag (`F32`, `BF16`, `U8`, ...) and patterns."""

    tag: str
    array: NDArray[Any]


def to_arrays(tensor: ClusteredTensor) -> dict[str, StoredArray]:
    """The arrays of a tensor, by suffix; raises InputError where it has no axis, or over eight."""
    if not 1 <= len(tensor.shape) <= MAX_AXES:
        raise InputError(f"a tensor of shape {tensor.shape} was given; expected 1 to 8 axes")
    layout = PackedLayout(tensor.shape, tensor.float_format, tensor.k, tensor.n_matrices)
    ranks = tensor.ranks.reshape(tensor.n_matrices, -1)
    coded, entries = [], []
    for chunk in range(layout.n_chunks):
        matrix, start, stop = layout.span(chunk)
        data, entry = encode_chunk(np.ascontiguousarray(ranks[matrix, start:stop]), tensor.k)
        coded.append(data)
        entries.append(entry)
    packed = layout.header(entries) + b"".join(data.tobytes() for data in coded)
    packed += bytes(-len(packed) % ALIGNMENT)
    arrays = {
        PACKED: StoredArray("U8", np.frombuffer(packed, np.uint8)),
        CODEBOOK: StoredArray("F32", tensor.codebook),
        **scale_arrays(tensor.values),
    }
    if len(tensor.protected_index):
        entries16 = encode_positions(tensor.protected_index)
        arrays[PROTECTED_INDEX] = StoredArray("U16", entries16)
        arrays[PROTECTED_VALUE] = StoredArray(tensor.float_format.value, tensor.protected_value)
    return arrays


def scale_arrays(values: Values) -> dict[str, StoredArray]:
    """The factors that a tensor has, by suffix."""
    scales = {ROW_SCALE: values.row_scale, COLUMN_SCALE: values.column_scale}
    return {
        suffix: StoredArray(_SCALE_TAGS[scale.dtype], scale)
        for suffix, scale in scales.items()
        if scale is not None
    }


def from_arrays(arrays: Mapping[str, StoredArray], name: str) -> ClusteredTensor:
    """The tensor of some arrays, by suffix; decodes all of it.

    Raises FormatError, naming the tensor, for arrays that do not fit together.
    """
    packed = _take(arrays, PACKED, "U8", name)
    reader = PackedReader(lambda start, stop: packed[start:stop], len(packed), name)
    ranks = np.empty((reader.layout.n_matrices, reader.layout.matrix_weights), np.uint8)
    for chunk, matrix, start, stop in reader.spans():
        ranks[matrix, start:stop] = reader.decode(chunk)
    values = values_of(arrays, reader.layout, name)
    return ClusteredTensor(values, ranks.reshape(values.shape))


def values_of(arrays: Mapping[str, StoredArray], layout: PackedLayout, name: str) -> Values:
    """The values of a tensor from its small arrays (all but X_packed), checked.

    layout: of its packed ranks. name: for messages. Raises FormatError for arrays that do not fit.
    """
    codebook = _take(arrays, CODEBOOK, "F32", name).view(np.float32)
    stacked = codebook.ndim == 2
    if codebook.shape != ((layout.n_matrices, layout.k) if stacked else (layout.k,)):
        raise FormatError(
            f"{name}: codebook of shape {codebook.shape}, packed for k = {layout.k} and "
            f"{layout.n_matrices} matrices"
        )
    if not stacked and layout.n_matrices != 1:
        raise FormatError(f"{name}: one codebook for {layout.n_matrices} matrices")
    if not np.isfinite(codebook).all():
        raise FormatError(f"{name}: its codebook holds NaN or infinity")
    if not is_ascending(codebook):
        raise FormatError(f"{name}: its codebook does not ascend")
    matrix_shape = layout.shape[1:] if stacked else layout.shape
    n_rows = matrix_shape[0] if matrix_shape else 1
    index, value = _protected(arrays, layout, name)
    return Values(
        shape=layout.shape,
        float_format=layout.float_format,
        codebook=codebook,
        row_scale=_scale(arrays, ROW_SCALE, layout, n_rows, name),
        column_scale=_scale(arrays, COLUMN_SCALE, layout, layout.matrix_weights // n_rows, name),
        protected_index=index,
        protected_value=value,
    )


def _take(arrays: Mapping[str, StoredArray], suffix: str, tag: str, name: str) -> NDArray[Any]:
    stored = arrays.get(suffix)
    if stored is None or stored.tag != tag:
        found = "nothing" if stored is None else stored.tag
        raise FormatError(f"{name}{suffix}: expected an array of {tag}, found {found}")
    return stored.array


def _scale(
    arrays: Mapping[str, StoredArray], suffix: str, layout: PackedLayout, length: int, name: str
) -> Scale | None:
    stored = arrays.get(suffix)
    if stored is None:
        return None
    if stored.tag not in _SCALE_DTYPES or stored.array.size != layout.n_matrices * length:
        raise FormatError(
            f"{name}{suffix}: {stored.array.shape} of {stored.tag}; expected "
            f"{layout.n_matrices * length} factors of U8, F16 or F32"
        )
    scale: Scale = stored.array.view(_SCALE_DTYPES[stored.tag])
    if stored.tag != "U8" and not (np.isfinite(scale) & (scale > 0)).all():
        raise FormatError(f"{name}{suffix}: a factor is not positive and finite")
    return scale


def _protected(
    arrays: Mapping[str, StoredArray], layout: PackedLayout, name: str
) -> tuple[NDArray[np.int64], Bits]:
    float_format: FloatFormat = layout.float_format
    if PROTECTED_INDEX not in arrays and PROTECTED_VALUE not in arrays:
        return np.empty(0, np.int64), np.empty(0, float_format.bits_dtype)
    entries = _take(arrays, PROTECTED_INDEX, "U16", name)
    values = _take(arrays, PROTECTED_VALUE, float_format.value, name)
    index = decode_positions(entries, layout.matrix_weights * layout.n_matrices, name)
    if len(index) != values.size:
        raise FormatError(f"{name}: {len(index)} protected positions, {values.size} values")
    return index, values
