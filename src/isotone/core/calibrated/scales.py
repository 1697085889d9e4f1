"""Scales of a matrix by what errors in its rows and columns cost.

If ranks were coded column by column, all weights should be rounded so that their errors cost the
same: in steps of the error unit of column j ("water-filling"). But all ranks of a matrix share one
code, which is at its best if all weights are of the same size after division. So a scale is the
geometric mean of the cost-optimal and the size-optimal scale, weighted 0.75 and 0.25 for columns,
and 0.5 and 0.5 for rows.

References
----------
"WaterSIC", arXiv 2603.04956.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from isotone.core.calibrated.sensitivity import Sensitivity
from isotone.core.matrix import Matrix, MatrixSummary, count_divided
from isotone.core.moments import moments_of
from isotone.core.scales.balancing import ScaleRule
from isotone.core.scales.codes import decode_scales, encode_scales
from isotone.core.scales.scales import Scales

_LEAST_OUTPUT = 0.01  # share of the mean; other text may use an output that this text does not
_COLUMN_COST, _ROW_COST = 0.75, 0.5  # weights of the cost-optimal scale


def summarise_by_cost(
    matrix: Matrix, rule: ScaleRule, sensitivity: Sensitivity, error_unit: NDArray[np.float64]
) -> MatrixSummary:
    """Choose scales by what errors cost, and count the weights divided by them.

    Parameters
    ----------
    matrix : Matrix
        The matrix to read.
    rule : ScaleRule
        NONE leaves all scales out, ROW those of the columns; else rows and columns get them.
    sensitivity : Sensitivity
        What errors in the matrix cost.
    error_unit : float64 array, `[columns]`
        The error in each column that costs 1, see `InverseHessianFactor`.

    Returns
    -------
    MatrixSummary
        Its `unit` is the squared error of one divided weight that costs 1 nat a token. The errors
        of `summarise_matrix` are raised.
    """
    moments = moments_of(matrix.rows, matrix.float_format)
    outputs = sensitivity.outputs.astype(np.float64)
    outputs = outputs + _LEAST_OUTPUT * outputs.mean()
    of_rows, of_columns = _mean_squares(matrix)
    scales = _encoded(
        matrix,
        rule,
        _geometric_mean(1.0 / np.sqrt(outputs), of_rows, _ROW_COST),
        _geometric_mean(error_unit, of_columns, _COLUMN_COST),
    )
    row, column = scales.products()
    cost = 0.5 * float(np.mean(outputs * row**2) * np.mean((column / error_unit) ** 2))
    return MatrixSummary(scales, moments, count_divided(matrix, scales), 1.0 / cost)


def _mean_squares(matrix: Matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean squares of the rows and of the columns."""
    rows, columns = [], np.zeros(matrix.shape[1])
    for _, piece in matrix.pieces():
        squares = np.square(piece, dtype=np.float64)
        rows.append(squares.mean(axis=1))
        columns += squares.sum(axis=0)
    return np.concatenate(rows), columns / matrix.shape[0]


def _geometric_mean(
    cost_optimal: NDArray[np.float64], mean_squares: NDArray[np.float64], share: float
) -> NDArray[np.float64]:
    """The mean of cost-optimal and size-optimal scales, `[n]`, with the median 1.

    Rows or columns of zeros, which have no size, are taken to have the median size of the others.
    """
    sizes = np.sqrt(mean_squares)
    used = sizes > 0.0
    sizes = np.where(used, sizes, np.median(sizes[used]) if used.any() else 1.0)
    scales = cost_optimal**share * sizes ** (1.0 - share)
    mean: NDArray[np.float64] = scales / np.median(scales)
    return mean


def _encoded(
    matrix: Matrix, rule: ScaleRule, row: NDArray[np.float64], column: NDArray[np.float64]
) -> Scales:
    """Encode scales, and find the power of two that brings the divided weights to about 1."""
    n_rows, n_columns = matrix.shape
    codes = (
        encode_scales(np.ones(n_rows) if rule is ScaleRule.NONE else row),
        encode_scales(column if rule in (ScaleRule.AUTO, ScaleRule.BOTH) else np.ones(n_columns)),
    )
    inverse_row, inverse_column = (1.0 / decode_scales(code).astype(np.float64) for code in codes)
    sizes = np.concatenate([np.abs(piece) @ inverse_column for _, piece in matrix.pieces()])
    size = float(np.mean(sizes * inverse_row)) / n_columns
    return Scales(
        row=None if rule is ScaleRule.NONE else codes[0],
        column=codes[1] if rule in (ScaleRule.AUTO, ScaleRule.BOTH) else None,
        unit=2.0 ** round(math.log2(size)) if size > 0.0 else 1.0,
        n_rows=n_rows,
        n_columns=n_columns,
    )
