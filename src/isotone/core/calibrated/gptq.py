"""Clustering a matrix with error feedback (GPTQ), so that its outputs change least.

The histogram of the divided weights is clustered as for any other matrix, at one λ. Then columns
get their ranks one after the other, those that contribute most to the outputs first, and the error
of each is fed back into the columns to come (`inverse_hessian`). If inputs do not correlate
(H = 1), the ranks are those of plain clustering with the same scales, to the last bit.
"""

from __future__ import annotations

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
    The cost is rows * columns^2 / 2 multiplications. The memory is that of the matrix in float32,
    twice, and of its ranks.
    """
    scales = summary.scales
    assert scales is not None
    assigned = cluster_summary(summary, matrix, method)
    table = PatternTable.of(assigned.histogram.keys, labels_of(assigned), FloatFormat.F16)
    row, column = scales.products()
    weights = matrix.dense() * (1.0 / row).astype(np.float32)[:, None]
    weights *= (1.0 / column).astype(np.float32)
    ranks, positions = _ranked(weights, feedback, column, table, assigned.codebook)
    return GptqFit(
        codebook=assigned.codebook * np.float32(scales.unit),
        scales=scales,
        lookup_table=table,
        counts=np.bincount(ranks, minlength=len(assigned.codebook)).astype(np.int64),
        n_protected=len(positions),
        moments=summary.moments,
        optimality_bound=0.0,
        ranks=ranks,
        positions=positions,
    )


def errors_of(matrix: Matrix, fit: Fit) -> NDArray[np.float32]:
    """Return the errors of a clustered matrix: the restored weights less the original ones.

    Parameters
    ----------
    matrix : Matrix
        The matrix to read.
    fit : Fit
        Its fit.

    Returns
    -------
    float32 array, `[rows, columns]`
        The errors.
    """
    dense = np.concatenate(list(matrix.rows()))
    ranks, restored = np.empty(len(dense), np.uint8), np.empty_like(dense)
    positions = fit.assign(dense, 0, matrix.float_format, ranks)
    values = fit.values(matrix.shape, matrix.float_format, positions, dense[positions])
    values.decode(ranks, restored)
    upcast = matrix.float_format.upcast
    return (upcast(restored) - upcast(dense)).reshape(matrix.shape)


def _ranked(
    weights: NDArray[np.float32],
    feedback: InverseHessianFactor,
    column: NDArray[np.float64],
    table: PatternTable,
    codebook: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Ranks, `[n]`, of divided weights `[rows, columns]`, and the positions of protected ones."""
    order, n_columns = feedback.order, len(column)
    ordered, ranks = np.empty(weights.size, np.uint8), np.empty(weights.shape, np.uint8)
    found = _native.round_with_feedback(
        np.ascontiguousarray(weights[:, order]).reshape(-1),
        n_columns,
        feedback.between_scaled(column).reshape(-1),
        table.table,
        codebook,
        ordered,
    )
    ranks[:, order] = ordered.reshape(weights.shape)
    rows, places = np.divmod(found, n_columns)
    return ranks.reshape(-1), np.sort(rows * n_columns + order[places])
