"""The small arrays of a clustered tensor, by the suffixes of their names.

For a tensor X the arrays on disk are X_packed (see `isotone.codec.packed`), X_codebook and, where
used, X_row_scale, X_column_scale, X_protected_index and X_protected_value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isotone.codec.outlier_index import decode_positions
from isotone.codec.packed import PackedLayout
from isotone.core.float_format import Bits
from isotone.core.scales.codes import Scale
from isotone.core.values import Values, is_ascending
from isotone.errors import FormatError

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
"""The arrays that hold values, which may change while the ranks stay, and their dtypes."""


class StoredArray(NamedTuple):
    """An array as safetensors stores it.

    Attributes
    ----------
    tag : str
        The dtype by the name that safetensors gives it: `F32`, `BF16`, `U8` and so on.
    array : array
        The elements, or their bit patterns.
    """

    tag: str
    array: NDArray[Any]


def scale_arrays(values: Values) -> dict[str, StoredArray]:
    """Return the scales of a tensor as they are stored.

    Parameters
    ----------
    values : Values
        The values of the tensor.

    Returns
    -------
    dict of str to StoredArray
        By suffix; only those scales that the tensor has.
    """
    scales = {ROW_SCALE: values.row_scale, COLUMN_SCALE: values.column_scale}
    return {
        suffix: StoredArray(_SCALE_TAGS[scale.dtype], scale)
        for suffix, scale in scales.items()
        if scale is not None
    }


def values_of(arrays: Mapping[str, StoredArray], layout: PackedLayout, name: str) -> Values:
    """Check the small arrays of a tensor, and return its values.

    Parameters
    ----------
    arrays : mapping of str to StoredArray
        By suffix; X_packed is not needed.
    layout : PackedLayout
        The layout of its packed ranks.
    name : str
        The name of the tensor, for messages.

    Returns
    -------
    Values
        They share the arrays.

    Raises
    ------
    FormatError
        If an array is missing, or does not fit the others.
    """
    codebook = _take(arrays, CODEBOOK, "F32", name).view(np.float32)
    stacked = codebook.ndim == 2
    if codebook.shape != ((layout.n_matrices, layout.k) if stacked else (layout.k,)):
        raise FormatError(
            f"{name}: its codebook has the shape {codebook.shape}, but its ranks were packed for "
            f"{layout.n_matrices} matrices with k = {layout.k}"
        )
    if not stacked and layout.n_matrices != 1:
        raise FormatError(
            f"{name}: it has one codebook; expected one for each of {layout.n_matrices} matrices"
        )
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
            f"{name}{suffix}: found an array of shape {stored.array.shape} and dtype {stored.tag}; "
            f"expected {layout.n_matrices * length} scales of U8, F16 or F32"
        )
    scale: Scale = stored.array.view(_SCALE_DTYPES[stored.tag])
    if stored.tag != "U8" and not (np.isfinite(scale) & (scale > 0)).all():
        raise FormatError(f"{name}{suffix}: a scale is not positive and finite")
    return scale


def _protected(
    arrays: Mapping[str, StoredArray], layout: PackedLayout, name: str
) -> tuple[NDArray[np.int64], Bits]:
    float_format = layout.float_format
    if PROTECTED_INDEX not in arrays and PROTECTED_VALUE not in arrays:
        return np.empty(0, np.int64), np.empty(0, float_format.bits_dtype)
    entries = _take(arrays, PROTECTED_INDEX, "U16", name)
    values = _take(arrays, PROTECTED_VALUE, float_format.value, name)
    index = decode_positions(entries, layout.matrix_weights * layout.n_matrices, name)
    if len(index) != values.size:
        raise FormatError(
            f"{name}: {len(index)} protected positions were found, but {values.size} values"
        )
    return index, values
