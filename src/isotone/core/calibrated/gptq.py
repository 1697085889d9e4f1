"""Clustering a matrix by what its errors cost: every error is made good by the columns to come.

With H the second moment of the inputs, a row's error e costs e H e^T = |e V|^2, where H = V V^T and
V is upper triangular. Columns get their ranks one after the other, those that bring most to the
outputs first; the error of each is spread over the columns still to come, the way that lowers the
cost most (GPTQ: Frantar et al., arXiv 2210.17323), and what is left of it then costs V[j, j]^2
times its square.

Were ranks coded column by column, all weights should be rounded so that their errors cost alike: by
steps of 1 / V[j, j] in column j ("water-filling": WaterSIC, arXiv 2603.04956). But all ranks of a
matrix share one code, which is at its best where all weights are alike after division. So factors
are a mean of both wishes, in logarithms: three parts cost and one part size for columns, halves for
rows. What is left is clustered as ever, with one price of a bit; where nothing tells columns apart
(H = 1), ranks are those of plain clustering with the same factors, to the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotone import _native
from isotone.core.calibrated.sensitivity import Sensitivity
from isotone.core.clustering.lookup import PatternTable, labels_of
from isotone.core.clustering.method import Method
from isotone.core.fit import Fit, Matrix, MatrixSummary, cluster_counted
from isotone.core.float_format import Bits, FloatFormat
from isotone.core.histogram import collect
from isotone.core.moments import moments_of
from isotone.core.scales.balancing import ScaleRule, Scales
from isotone.core.scales.codes import decode_scales, encode_scales

_OWN_DAMPING = 0.2  # of each input's own mean square: other text correlates inputs otherwise
_DAMPING = 0.01  # of the mean of them: and uses inputs that this one leaves alone
_LEAST_OUTPUT = 0.01  # of the mean: what other text may ask of an output
_COLUMN_COST, _ROW_COST = 0.75, 0.5  # against the size of their weights
_MOST_DAMPING = 1e4
_WHOLE = 128  # columns whose triangle is inverted at once


@dataclass(frozen=True)
class Spreading:
    """How errors are spread, from the second moment of the inputs.

    order: [columns] int64, in which the columns get their ranks. spread: [columns, columns]
    float32, in that order; above the diagonal, what an error of 1 in column j takes off column t;
    the rest is not used. step: [columns] float64, as the matrix has them, the error in each column
    that costs 1 when it is spread.
    """

    order: NDArray[np.int64]
    spread: NDArray[np.float32]
    step: NDArray[np.float64]

    @classmethod
    def of(cls, second_moment: NDArray[np.float32], order: NDArray[np.int64]) -> Spreading:
        """From [columns, columns], finite and not all zero.

        Damped on its diagonal, by a share of itself and of its mean, and ten times as much as often
        as that takes to make it positive definite. Cost: columns^3, in float64.
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
            spread = _inverted(upper) * root[:, None]
            return cls(order, spread.astype(np.float32), _put_back(1.0 / root, order))
        raise AssertionError("a diagonal that outweighs all else is positive definite")

    def to_array(self) -> NDArray[np.float32]:
        """[columns + 1, columns] float32: the steps on the diagonal, the order in the last row."""
        array = np.concatenate([self.spread, self.order[None].astype(np.float32)])
        np.fill_diagonal(array, self.step[self.order])
        return array

    @classmethod
    def of_array(cls, array: NDArray[np.float32]) -> Spreading:
        """The inverse of `to_array`."""
        order = array[-1].astype(np.int64)
        return cls(order, array[:-1], _put_back(np.diag(array).astype(np.float64), order))

    def within(self, column: NDArray[np.float64]) -> NDArray[np.float32]:
        """The spread between columns that were divided by their factors [columns]."""
        narrow = column[self.order].astype(np.float32)
        return self.spread * narrow[:, None] * (1.0 / narrow)


def order_of(matrix: Matrix, second_moment: NDArray[np.float32]) -> NDArray[np.int64]:
    """The columns by how much they bring to the outputs' mean squares, falling.

    So the errors that cost most find the most columns to make them good. By the inputs alone it
    would be another order wherever channels are large where they are written and small where they
    are read. Columns that bring the same keep their order.
    """
    squares = np.square(_dense(matrix), dtype=np.float64).mean(axis=0)
    return np.argsort(-np.diag(second_moment) * squares, kind="stable")


def _put_back(values: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.float64]:
    """What an order was given to, as the matrix has it."""
    out = np.empty_like(values)
    out[order] = values
    return out


def _inverted(upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of an upper triangle, by halves."""
    n = len(upper)
    if n <= _WHOLE:
        whole: NDArray[Any] = np.linalg.inv(upper)
        return whole
    half = n // 2
    out = np.zeros_like(upper)
    out[:half, :half] = left = _inverted(upper[:half, :half])
    out[half:, half:] = right = _inverted(upper[half:, half:])
    out[:half, half:] = -left @ (upper[:half, half:] @ right)
    return out


@dataclass(frozen=True)
class SpreadFit(Fit):
    """A fit whose ranks follow from one another, so that they are all there: ranks [n] uint8.

    positions: [p] int64, of the protected weights.
    """

    ranks: NDArray[np.uint8]
    positions: NDArray[np.int64]

    def assign(
        self, bits: Bits, position: int, _float_format: FloatFormat, ranks: NDArray[np.uint8]
    ) -> NDArray[np.int64]:
        """See Fit."""
        ranks[:] = self.ranks[position : position + len(bits)]
        first, last = np.searchsorted(self.positions, [position, position + len(bits)])
        return self.positions[first:last] - position


def count_by_cost(
    matrix: Matrix, rule: ScaleRule, sensitivity: Sensitivity, step: NDArray[np.float64]
) -> MatrixSummary:
    """Factors by what errors cost, and what is left counted; raises as `core.fit.count` does.

    rule: NONE and ROW leave factors out; else rows and columns get them. step: see Spreading.
    """
    moments = moments_of(matrix.rows, matrix.float_format)
    outputs = sensitivity.outputs.astype(np.float64)
    outputs = outputs + _LEAST_OUTPUT * outputs.mean()
    squares = np.square(_dense(matrix), dtype=np.float64)
    scales = _scales(
        matrix,
        rule,
        _between(1.0 / np.sqrt(outputs), squares.mean(axis=1), _ROW_COST),
        _between(step, squares.mean(axis=0), _COLUMN_COST),
    )
    row = scales.unit * scales.row_scales().astype(np.float64)
    column = scales.column_scales().astype(np.float64)
    cost = 0.5 * float(np.mean(outputs * row**2) * np.mean((column / step) ** 2))
    keys = scales.divided(matrix.rows, matrix.float_format)
    return MatrixSummary(scales, moments, collect(keys, FloatFormat.F16, matrix.name), 1.0 / cost)


def _between(
    cost: NDArray[np.float64], mean_squares: NDArray[np.float64], share: float
) -> NDArray[np.float64]:
    """Factors [n] with the median 1, between those by cost and those by the size of the weights.

    Rows or columns of zeros, which have no size, are taken to have that of the others.
    """
    sizes = np.sqrt(mean_squares)
    used = sizes > 0.0
    sizes = np.where(used, sizes, np.median(sizes[used]) if used.any() else 1.0)
    factors = cost**share * sizes ** (1.0 - share)
    mean: NDArray[np.float64] = factors / np.median(factors)
    return mean


def _scales(
    matrix: Matrix, rule: ScaleRule, row: NDArray[np.float64], column: NDArray[np.float64]
) -> Scales:
    """Codes of factors, and the power of two that brings what is left to about 1."""
    n_rows, n_columns = matrix.shape
    codes = (
        encode_scales(np.ones(n_rows) if rule is ScaleRule.NONE else row),
        encode_scales(column if rule in (ScaleRule.AUTO, ScaleRule.BOTH) else np.ones(n_columns)),
    )
    inverse_row, inverse_column = (1.0 / decode_scales(code).astype(np.float64) for code in codes)
    sizes = np.abs(_dense(matrix)) @ inverse_column
    size = float(np.mean(sizes * inverse_row)) / n_columns
    return Scales(
        row=None if rule is ScaleRule.NONE else codes[0],
        column=codes[1] if rule in (ScaleRule.AUTO, ScaleRule.BOTH) else None,
        unit=2.0 ** round(math.log2(size)) if size > 0.0 else 1.0,
        n_rows=n_rows,
        n_columns=n_columns,
    )


def fit_with_feedback(
    matrix: Matrix, counted: MatrixSummary, spreading: Spreading, method: Method
) -> SpreadFit:
    """Cluster what was counted, then give ranks column by column.

    Cost: rows * columns^2 / 2 multiplications; memory of the matrix in float32, twice, and of its
    ranks.
    """
    scales = counted.scales
    assert scales is not None
    assigned = cluster_counted(counted, matrix, method)
    lookup_table = PatternTable.of(assigned.points.keys, labels_of(assigned), FloatFormat.F16)
    row = scales.unit * scales.row_scales().astype(np.float64)
    column = scales.column_scales().astype(np.float64)
    weights = _dense(matrix) * (1.0 / row).astype(np.float32)[:, None]
    weights *= (1.0 / column).astype(np.float32)
    ranks, positions = _ranked(weights, spreading, column, lookup_table, assigned.codebook)
    return SpreadFit(
        codebook=assigned.codebook * np.float32(scales.unit),
        scales=scales,
        lookup_table=lookup_table,
        counts=np.bincount(ranks, minlength=len(assigned.codebook)).astype(np.int64),
        n_protected=len(positions),
        moments=counted.moments,
        optimality_gap=0.0,
        ranks=ranks,
        positions=positions,
    )


def _ranked(
    weights: NDArray[np.float32],
    spreading: Spreading,
    column: NDArray[np.float64],
    lookup_table: PatternTable,
    codebook: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Ranks [n] of divided weights [rows, columns], and the positions of protected ones."""
    order, n_columns = spreading.order, len(column)
    ordered, ranks = np.empty(weights.size, np.uint8), np.empty(weights.shape, np.uint8)
    found = _native.round_with_feedback(
        np.ascontiguousarray(weights[:, order]).reshape(-1),
        n_columns,
        spreading.within(column).reshape(-1),
        lookup_table.table,
        codebook,
        ordered,
    )
    ranks[:, order] = ordered.reshape(weights.shape)
    rows, places = np.divmod(found, n_columns)
    return ranks.reshape(-1), np.sort(rows * n_columns + order[places])


def errors_of(matrix: Matrix, fit: Fit) -> NDArray[np.float32]:
    """What comes back of a matrix less what went in: [rows, columns] float32."""
    dense = np.concatenate(list(matrix.rows()))
    ranks, restored = np.empty(len(dense), np.uint8), np.empty_like(dense)
    positions = fit.assign(dense, 0, matrix.float_format, ranks)
    values = fit.values(matrix.shape, matrix.float_format, positions, dense[positions])
    values.decode(ranks, restored)
    wide = matrix.float_format.upcast
    return (wide(restored) - wide(dense)).reshape(matrix.shape)


def _dense(matrix: Matrix) -> NDArray[np.float32]:
    pieces = [matrix.float_format.upcast(piece) for piece in matrix.rows()]
    return np.concatenate(pieces).reshape(matrix.shape)
