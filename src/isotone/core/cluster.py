"""Cluster an array in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotone.core.clustered_tensor import ClusteredTensor
from isotone.core.fit import fit
from isotone.core.float_format import Bits, FloatFormat
from isotone.core.protection import Protection
from isotone.core.solver import MAX_K, MIN_K
from isotone.errors import InputError

_FORMATS = {"float16": FloatFormat.F16, "float32": FloatFormat.F32, "bfloat16": FloatFormat.BF16}


def cluster(
    array: NDArray[Any], k: int = 16, *, protect: str = "auto", stack: bool = False
) -> ClusteredTensor:
    """Cluster a matrix, or each matrix of a stack, optimally into k shared values.

    array: [rows, columns], any number of axes, float16 or float32, or bfloat16 (ml_dtypes).
        float64 is refused rather than rounded: convert it yourself.
    k: 2 to 256 values.
    protect: which weights to store exactly: `auto`, `off` or a fraction of them.
    stack: the first axis counts matrices; each gets a codebook of its own.

    Raises InputError for what is no array, for any other dtype or k, NaN, infinity, and no weights.
    """
    if not isinstance(array, np.ndarray):
        raise InputError(f"a {type(array).__name__} was given; expected a NumPy array")
    float_format = _FORMATS.get(array.dtype.name) if array.dtype.isnative else None
    if float_format is None:
        raise InputError(f"the array is {array.dtype}; expected float32, float16 or bfloat16")
    check_k(k)
    rule = Protection.parse(protect)
    if stack and (array.ndim < 2 or not len(array)):
        raise InputError(f"a stack of shape {array.shape} was given; expected two axes or more")
    bits = np.ascontiguousarray(array).view(float_format.bits_dtype).reshape(-1)
    matrices = bits.reshape(array.shape[0], -1) if stack else bits.reshape(1, -1)

    ranks = np.empty(matrices.shape, np.uint8)
    codebooks, positions = [], []
    for i, matrix in enumerate(matrices):
        found = fit(_whole(matrix), float_format, k, rule, "the array")
        codebooks.append(found.codebook)
        positions.append(found.labeller.assign(matrix, ranks[i]) + i * matrices.shape[1])
    index = np.concatenate(positions)
    return ClusteredTensor(
        shape=array.shape,
        float_format=float_format,
        codebook=np.stack([pad_codebook(c, k) for c in codebooks]) if stack else codebooks[0],
        assignments=ranks.reshape(array.shape),
        protected_index=index,
        protected_value=bits[index],
    )


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


def _whole(matrix: Bits) -> Any:  # noqa: ANN401 (a Chunks of one piece)
    return lambda: (matrix,)
