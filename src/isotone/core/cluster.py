"""Clustering an array in memory."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotone.core.clustered_tensor import ClusteredTensor
from isotone.core.clustering.kmeans import KMeansMethod
from isotone.core.clustering.method import Method
from isotone.core.clustering.outliers import Protection
from isotone.core.clustering.solver import MAX_K, MIN_K
from isotone.core.fit import Fit, fit
from isotone.core.float_format import Bits, FloatFormat
from isotone.core.matrix import Matrix
from isotone.core.scales.balancing import ScaleRule
from isotone.core.scales.scales import Rows
from isotone.core.stack import stack_values
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

    Every weight becomes the rank of its value in an ascending codebook. The codebook is the exact
    optimum of k-means, found by dynamic programming, for the weights that are not protected.

    Parameters
    ----------
    array : array, `[rows, columns]`
        The weights, float32, float16 or bfloat16 (of ml_dtypes), with any number of axes; all axes
        but the first are columns. float64 is refused rather than rounded: convert it yourself.
    k : int
        The number of values, 2 to 256.
    protect : str
        Which weights are protected, that is, stored exactly: `auto` for the outliers that pay for
        their bits, `off`, or the fraction of the weights with the largest errors, up to 0.05.
    scale : str
        Which scales the matrix gets: `none`, `row`, `both` for rows and columns, or `auto` for
        those that pay for their bytes. Without scales the codebook is the best there is for the
        squared error of the array.
    stack : bool
        Whether the first axis counts matrices; each then gets a codebook of its own.

    Returns
    -------
    ClusteredTensor
        Ranks, of the shape of the array, and values; `dense()` gives the weights back.

    Raises
    ------
    InputError
        If `array` is no NumPy array of these dtypes, if it is empty or holds NaN or infinity, if a
        stack has fewer than two axes, or if an option is out of range.

    Notes
    -----
    Weights are counted in one pass and given their ranks in another. The solver between them costs
    O(k n log n) for n distinct values, at most 65,536 for 16-bit formats.

    References
    ----------
    Grønlund et al., "Fast exact k-means, k-medians and Bregman divergence clustering in 1D",
    arXiv 1701.07204.

    Examples
    --------
    >>> import numpy as np
    >>> import isotone
    >>> array = np.array([[12, 1, 10], [2, 11, 12]], np.float32)
    >>> tensor = isotone.cluster(array, k=2)
    >>> tensor.codebook
    array([ 1.5 , 11.25], dtype=float32)
    >>> tensor.ranks
    array([[1, 0, 1],
           [0, 1, 1]], dtype=uint8)
    >>> tensor.with_codebook(np.float32([0, 1])).dense()
    array([[1., 0., 1.],
           [0., 1., 1.]], dtype=float32)
    """
    float_format = _format_of(array)
    check_k(k)
    method, rule = KMeansMethod(k, Protection.parse(protect)), ScaleRule.parse(scale)
    if stack and (array.ndim < 2 or not len(array)):
        raise InputError(f"a stack of shape {array.shape} was given; expected two axes or more")
    bits = np.ascontiguousarray(array).view(float_format.bits_dtype).reshape(-1)
    shape = array.shape or (1,)
    n_matrices, matrix_shape = (shape[0], shape[1:]) if stack else (1, shape)
    fits, ranks, index = _fit_each(
        bits.reshape(n_matrices, -1),
        (matrix_shape[0], math.prod(matrix_shape[1:])),
        float_format,
        rule,
        method,
    )
    values = stack_values(fits, array.shape, float_format, k=k if stack else None)
    values = replace(values, protected_index=index, protected_value=bits[index])
    return ClusteredTensor(values, ranks.reshape(array.shape))


def check_k(k: int) -> None:
    """Check a number of centroids.

    Parameters
    ----------
    k : int
        The number of centroids.

    Raises
    ------
    InputError
        If k is not 2 to 256: a rank has 8 bits.
    """
    if not MIN_K <= k <= MAX_K:
        raise InputError(f"k is {k}; expected {MIN_K} to {MAX_K} centroids")


def _format_of(array: NDArray[Any]) -> FloatFormat:
    if not isinstance(array, np.ndarray):
        raise InputError(f"a {type(array).__name__} was given; expected a NumPy array")
    float_format = _FORMATS.get(array.dtype.name) if array.dtype.isnative else None
    if float_format is None:
        raise InputError(f"the array is {array.dtype}; expected float32, float16 or bfloat16")
    return float_format


def _fit_each(
    matrices: Bits,
    shape: tuple[int, int],
    float_format: FloatFormat,
    rule: ScaleRule,
    method: Method,
) -> tuple[list[Fit], NDArray[np.uint8], NDArray[np.int64]]:
    """The fit of each matrix, all ranks, and the positions of all protected weights."""
    ranks = np.empty(matrices.shape, np.uint8)
    fits, positions = [], []
    for i, bits in enumerate(matrices):
        found = fit(Matrix(_whole(bits), shape, float_format, "the array"), rule, method)
        fits.append(found)
        positions.append(found.assign(bits, 0, float_format, ranks[i]) + i * matrices.shape[1])
    return fits, ranks, np.concatenate(positions)


def _whole(bits: Bits) -> Rows:
    return lambda: (bits,)
