"""Cluster an array in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotone.core.clustered_tensor import ClusteredTensor
from isotone.core.clustering.kmeans import MAX_K, MIN_K
from isotone.core.clustering.outliers import KMeansMethod, Protection
from isotone.core.fit import Matrix, fit
from isotone.core.float_format import Bits, FloatFormat
from isotone.core.scales.balancing import Rows, ScaleRule
from isotone.core.scales.codes import UNITY
from isotone.core.values import Values
from isotone.errors import InputError

_FORMATS = {"float16": FloatFormat.F16, "float32": FloatFormat.F32, "bfloat16": FloatFormat.BF16}


def cluster(
    array: NDArray[Any],
    k: int = 16,
    *,
    protect: str = "auto",
    scale: str = "none",
    stack: bool = False,
) -> ClusteredTensor:
    """Cluster a matrix, or each matrix of a stack, optimally into k shared values.

    array: [rows, columns], any number of axes, float16 or float32, or bfloat16 (ml_dtypes).
        float64 is refused rather than rounded: convert it yourself.
    k: 2 to 256 values.
    protect: which weights to store exactly: `auto`, `off` or a fraction of them.
    scale: factors of rows and columns: `auto`, `none`, `row` or `both`. Without any, the codebook
        is the best there is for the array's squared error.
    stack: the first axis counts matrices; each gets a codebook of its own.

    Raises InputError for what is no array, for any other dtype or k, NaN, infinity, and no weights.
    """
    if not isinstance(array, np.ndarray):
        raise InputError(f"a {type(array).__name__} was given; expected a NumPy array")
    float_format = _FORMATS.get(array.dtype.name) if array.dtype.isnative else None
    if float_format is None:
        raise InputError(f"the array is {array.dtype}; expected float32, float16 or bfloat16")
    check_k(k)
    method, rule = KMeansMethod(k, Protection.parse(protect)), ScaleRule.parse(scale)
    if stack and (array.ndim < 2 or not len(array)):
        raise InputError(f"a stack of shape {array.shape} was given; expected two axes or more")
    bits = np.ascontiguousarray(array).view(float_format.bits_dtype).reshape(-1)
    matrices = bits.reshape(array.shape[0], -1) if stack else bits.reshape(1, -1)

    shape = array.shape[1:] if stack else array.shape or (1,)
    ranks = np.empty(matrices.shape, np.uint8)
    fits, positions = [], []
    for i, bits in enumerate(matrices):
        matrix = Matrix(_whole(bits), (shape[0], math.prod(shape[1:])), float_format, "the array")
        found = fit(matrix, rule, method)
        fits.append(found)
        positions.append(found.assign(bits, 0, float_format, ranks[i]) + i * matrices.shape[1])
    index = np.concatenate(positions)
    codebooks = [found.codebook for found in fits]
    values = Values(
        shape=array.shape,
        float_format=float_format,
        codebook=np.stack([pad_codebook(c, k) for c in codebooks]) if stack else codebooks[0],
        row_scale=stacked_codes([f.row_scale for f in fits], shape[0], stack=stack),
        column_scale=stacked_codes(
            [f.column_scale for f in fits], math.prod(shape[1:]), stack=stack
        ),
        protected_index=index,
        protected_value=matrices.reshape(-1)[index],
    )
    return ClusteredTensor(values, ranks.reshape(array.shape))


def stacked_codes(
    codes: Sequence[NDArray[np.uint8] | None], length: int, *, stack: bool
) -> NDArray[np.uint8] | None:
    """The factors of a tensor's matrices as one array, ones for those that have none.

    codes: of each matrix, [length] or None. Returns [length], or [matrices, length] for a stack;
    None where no matrix has any.
    """
    if all(found is None for found in codes):
        return None
    ones = np.full(length, UNITY, np.uint8)
    stacked = np.stack([ones if found is None else found for found in codes])
    return stacked if stack else stacked[0]


def check_k(k: int) -> None:
    """Raise InputError for a number of centroids that a rank of 8 bits cannot tell apart."""
    if not MIN_K <= k <= MAX_K:
        raise InputError(f"k is {k}; expected {MIN_K} to {MAX_K} centroids")


def pad_codebook(codebook: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """A codebook of length k for a stack, whose codebooks are all of one length.

    A matrix with fewer distinct values than k needs fewer centroids; ones that no weight uses, just
    above its largest, make up the length, so that it stays strictly ascending.
    """
    padded = np.empty(k, np.float32)
    padded[: len(codebook)] = codebook
    for rank in range(len(codebook), k):
        padded[rank] = np.nextafter(padded[rank - 1], np.float32(np.inf))
    return padded


def _whole(bits: Bits) -> Rows:
    return lambda: (bits,)
