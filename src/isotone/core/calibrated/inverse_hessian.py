"""The inverse-Hessian factor: how the error of one column is fed back into the columns to come.

With H the second moment of the inputs, the error e of a row costs e H e^T. Let H = V V^T with V
upper triangular. Columns get their ranks one after the other, and the error of each is fed back
into the columns still to come, in the way that lowers the cost most (GPTQ). What is left of an
error in column j then costs V[j, j]^2 times its square.

References
----------
Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ: accurate post-training quantization for generative
pre-trained transformers", arXiv 2210.17323.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotone.core.matrix import Matrix

# Text other than the calibration text has other correlations between inputs (the first damping),
# and uses inputs that are nearly zero here (the second one).
_OWN_DAMPING = 0.2  # share of each input's own mean square
_DAMPING = 0.01  # share of the mean over all inputs
_MOST_DAMPING = 1e4
_WHOLE = 128  # a triangle of at most so many columns is inverted at once


@dataclass(frozen=True)
class InverseHessianFactor:
    """How errors are fed back, computed from the second moment of the inputs.

    Attributes
    ----------
    order : int64 array, `[columns]`
        The order in which the columns get their ranks.
    factor : float32 array, `[columns, columns]`
        In that order, above the diagonal: what an error of 1 in column j takes off column t. The
        rest is not used.
    error_unit : float64 array, `[columns]`
        In the order of the matrix: the error in each column that costs 1 when it is fed back.
    """

    order: NDArray[np.int64]
    factor: NDArray[np.float32]
    error_unit: NDArray[np.float64]

    @classmethod
    def of(
        cls, second_moment: NDArray[np.float32], order: NDArray[np.int64]
    ) -> InverseHessianFactor:
        """Factor the second moment of the inputs of a matrix.

        Its diagonal is damped by a share of itself and a share of its mean; the latter is raised
        tenfold until the matrix is positive definite.

        Parameters
        ----------
        second_moment : float32 array, `[columns, columns]`
            The mean of x x^T; finite and not all zero.
        order : int64 array, `[columns]`
            The order of the columns, see `column_order`.

        Returns
        -------
        InverseHessianFactor
            Computed in float64.

        Notes
        -----
        The cost is O(columns^3).
        """
        moment = second_moment[np.ix_(order, order)].astype(np.float64)
        diagonal = np.diag(moment)
        mean = float(diagonal.mean())
        moment = moment + np.diag(_OWN_DAMPING * diagonal)
        damping = _DAMPING
        while damping <= _MOST_DAMPING:
            damped = moment + damping * mean * np.eye(len(moment))
            try:
                lower: NDArray[Any] = np.linalg.cholesky(damped[::-1, ::-1])
            except np.linalg.LinAlgError:
                damping *= 10.0
                continue
            upper = lower[::-1, ::-1]
            root = np.diag(upper)
            factor = _inverse(upper) * root[:, None]
            return cls(order, factor.astype(np.float32), _in_matrix_order(1.0 / root, order))
        raise AssertionError("a diagonal that outweighs all else is positive definite")

    def to_array(self) -> NDArray[np.float32]:
        """Return everything as one array, as it is kept on disk.

        Returns
        -------
        float32 array, `[columns + 1, columns]`
            The factor with the error units on its diagonal, and the order in the last row.
        """
        array = np.concatenate([self.factor, self.order[None].astype(np.float32)])
        np.fill_diagonal(array, self.error_unit[self.order])
        return array

    @classmethod
    def of_array(cls, array: NDArray[np.float32]) -> InverseHessianFactor:
        """Return the factor that `to_array` gave an array of.

        Parameters
        ----------
        array : float32 array, `[columns + 1, columns]`
            See `to_array`; it may be mapped from a file.

        Returns
        -------
        InverseHessianFactor
            Its factor shares the array.
        """
        order = array[-1].astype(np.int64)
        error_unit = _in_matrix_order(np.diag(array).astype(np.float64), order)
        return cls(order, array[:-1], error_unit)

    def between_scaled(self, column: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the factor for columns that were divided by their scales.

        Parameters
        ----------
        column : float64 array, `[columns]`
            The scales, in the order of the matrix.

        Returns
        -------
        float32 array, `[columns, columns]`
            In `order`.
        """
        scales = column[self.order].astype(np.float32)
        return self.factor * scales[:, None] * (1.0 / scales)


def column_order(matrix: Matrix, second_moment: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the columns by their contribution to the mean squares of the outputs, falling.

    The columns whose errors cost most come first, so most columns are left to compensate for these
    errors. Unlike an order by the inputs alone, this order stays the same if a channel is
    multiplied by a number where it is written and divided by it where it is read.

    Parameters
    ----------
    matrix : Matrix
        The matrix to read.
    second_moment : float32 array, `[columns, columns]`
        The mean of x x^T over the inputs.

    Returns
    -------
    int64 array, `[columns]`
        Columns with equal contributions keep their order.
    """
    squares = np.zeros(matrix.shape[1])
    for _, piece in matrix.pieces():
        squares += np.square(piece, dtype=np.float64).sum(axis=0)
    return np.argsort(-np.diag(second_moment) * squares / matrix.shape[0], kind="stable")


def _in_matrix_order(values: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.float64]:
    """Values of ordered columns, put back into the order of the matrix."""
    out = np.empty_like(values)
    out[order] = values
    return out


def _inverse(upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of an upper triangle, by halves."""
    n = len(upper)
    if n <= _WHOLE:
        whole: NDArray[Any] = np.linalg.inv(upper)
        return whole
    half = n // 2
    out = np.zeros_like(upper)
    out[:half, :half] = left = _inverse(upper[:half, :half])
    out[half:, half:] = right = _inverse(upper[half:, half:])
    out[:half, half:] = -left @ (upper[:half, half:] @ right)
    return out
