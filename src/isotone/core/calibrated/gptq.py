"""Clustering a matrix with error feedback (GPTQ), so that its outputs change least.

The histogram of the divided weights is clustered as for any other matrix, at one λ. Then columns
get their ranks one after the other, those that contribute most to the outputs first, and the error
of each is fed back into the columns to come (`inverse_hessian`). If inputs do not correlate
(H = 1), the ranks are those of plain clustering with the same scales, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isotone import _native
from isotone.core.calibrated.inverse_hessian import InverseHessianFactor
from isotone.core.clustering.lookup import PatternTable, labels_of
from isotone.core.clustering.method import Method
from isotone.core.fit import Fit, cluster_summary
from isotone.core.float_format import Bits, FloatFormat
from isotone.core.matrix import Matrix, MatrixSummary


@dataclass(frozen=True)
class GptqFit(Fit):
    """A fit whose ranks depend on each other, so that they are all computed at once.

    Attributes
    ----------
    ranks : uint8 array, `[n_weights]`
        The rank of every weight.
    positions : int64 array, `[p]`
        Ascending positions of the protected weights.
    """

    ranks: NDArray[np.uint8]
    positions: NDArray[np.int64]

    def assign(
        self, bits: Bits, position: int, _float_format: FloatFormat, ranks: NDArray[np.uint8]
    ) -> NDArray[np.int64]:
        """Copy the ranks of a run of weights, and return the positions of protected ones.

        Parameters
        ----------
        bits, position, ranks
            See `Fit.assign`; of the weights only their number is used.

        Returns
        -------
        int64 array, `[p]`
            Ascending positions of the protected weights in the run.
        """
        ranks[:] = self.ranks[position : position + len(bits)]
        first, last = np.searchsorted(self.positions, [position, position + len(bits)])
        return self.positions[first:last] - position


def fit_with_feedback(
    matrix: Matrix, summary: MatrixSummary, feedback: InverseHessianFactor, method: Method
) -> GptqFit:
    """Cluster the histogram of a matrix, then give ranks column by column with error feedback.

    Parameters
    ----------
    matrix : Matrix
        The matrix to read.
    summary : MatrixSummary
        Its summary by cost, with scales, see `summarise_by_cost`.
    feedback : InverseHessianFactor
        How errors are fed back.
    method : Method
        How the histogram is clustered.

    Returns
    -------
    GptqFit
        The clustered matrix, ranks included.

    Notes
    -----
    The cost is rows * columns^2 / 2 multiplications. The memory is that of the ranks, and of a
    piece of the matrix in float32, three times.
    """
    scales = summary.scales
    assert scales is not None
    assigned = cluster_summary(summary, matrix, method)
    table = PatternTable.of(assigned.histogram.keys, labels_of(assigned), FloatFormat.F16)
    row, column = scales.products()
    inverse = (1.0 / row).astype(np.float32)[:, None], (1.0 / column).astype(np.float32)
    rounding = _Rounding(feedback, column, table, assigned.codebook)
    ranks, found = np.empty(matrix.shape, np.uint8), []
    for first, weights in matrix.pieces():
        rows = slice(first, first + len(weights))
        ranks[rows], positions = rounding.ranked(weights * inverse[0][rows] * inverse[1])
        found.append(positions + first * len(column))
    return GptqFit(
        codebook=assigned.codebook * np.float32(scales.unit),
        scales=scales,
        lookup_table=table,
        counts=np.bincount(ranks.reshape(-1), minlength=len(assigned.codebook)).astype(np.int64),
        n_protected=sum(map(len, found)),
        moments=summary.moments,
        optimality_bound=0.0,
        ranks=ranks.reshape(-1),
        positions=np.concatenate(found),
    )


def errors_of(matrix: Matrix, fit: Fit) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the errors of a clustered matrix: the restored weights less the original ones.

    Parameters
    ----------
    matrix : Matrix
        The matrix to read.
    fit : Fit
        Its fit.

    Yields
    ------
    first : int
        The first row of a piece of the matrix.
    errors : float32 array, `[rows, columns]`
        The errors in its rows.
    """
    n_columns, upcast = matrix.shape[1], matrix.float_format.upcast
    position = 0
    for dense in matrix.rows():
        ranks, restored = np.empty(len(dense), np.uint8), np.empty_like(dense)
        positions = fit.assign(dense, position, matrix.float_format, ranks)
        first = position // n_columns
        shape = len(dense) // n_columns, n_columns
        rows = fit.of_rows(first, shape[0])
        values = rows.values(shape, matrix.float_format, positions, dense[positions])
        values.decode(ranks, restored)
        yield first, (upcast(restored) - upcast(dense)).reshape(shape)
        position += len(dense)


class _Rounding:
    """Gives ranks to rows of divided weights, with error feedback along each row."""

    def __init__(
        self,
        feedback: InverseHessianFactor,
        column: NDArray[np.float64],
        table: PatternTable,
        codebook: NDArray[np.float32],
    ) -> None:
        self._order, self._factor = feedback.order, feedback.between_scaled(column).reshape(-1)
        self._table, self._codebook = table.table, codebook

    def ranked(self, weights: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return ranks, `[rows, columns]`, and the positions of protected weights."""
        order, n_columns = self._order, weights.shape[1]
        ordered, ranks = np.empty(weights.size, np.uint8), np.empty(weights.shape, np.uint8)
        found = _native.round_with_feedback(
            np.ascontiguousarray(weights[:, order]).reshape(-1),
            n_columns,
            self._factor,
            self._table,
            self._codebook,
            ordered,
        )
        ranks[:, order] = ordered.reshape(weights.shape)
        rows, places = np.divmod(found, n_columns)
        return ranks, np.sort(rows * n_columns + order[places])
