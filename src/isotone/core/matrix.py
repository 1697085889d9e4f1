"""A matrix as clustering reads it, and the summary that clustering works on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isotone.core.counting import collect, refuse_not_finite
from isotone.core.float_format import FloatFormat
from isotone.core.histogram import Histogram
from isotone.core.moments import Moments, moments_of
from isotone.core.rate import MatrixRate
from isotone.core.scales.balancing import ScaleRule, choose_scales
from isotone.core.scales.scales import Rows, Scales


@dataclass(frozen=True)
class Matrix:
    """A matrix that can be read as often as needed.

    Attributes
    ----------
    rows : callable
        Reads the matrix from its start in pieces of whole rows, as bit patterns.
    shape : tuple of int
        Rows and columns.
    float_format : FloatFormat
        The format of its weights.
    name : str
        The name of its tensor, for messages.
    n_chunks : int
        The number of chunks in which its ranks will be coded.
    """

    rows: Rows
    shape: tuple[int, int]
    float_format: FloatFormat
    name: str
    n_chunks: int = 1

    @property
    def rate(self) -> MatrixRate:
        """What the parts of the clustered matrix cost on disk."""
        return MatrixRate(8 * self.float_format.itemsize, self.n_chunks)

    def pieces(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield pieces of whole rows: the position of the first row, and `[rows, columns]`."""
        first = 0
        for bits in self.rows():
            piece = self.float_format.upcast(bits).reshape(-1, self.shape[1])
            yield first, piece
            first += len(piece)


@dataclass(frozen=True)
class MatrixSummary:
    """What clustering needs to know of a matrix; small, whatever the size of the matrix.

    Attributes
    ----------
    scales : Scales, optional
        The scales of the matrix, or None.
    moments : Moments
        The moments of the weights themselves.
    histogram : Histogram
        The weights, divided by the scales if there are any: what is to be clustered.
    unit : float, optional
        The squared error of one value of the histogram in whose units λ is given: the squared
        error that costs 1 nat, for a matrix that is summarised by what its errors cost. None for a
        matrix that is not calibrated, where λ is relative to the histogram's bulk.
    """

    scales: Scales | None
    moments: Moments
    histogram: Histogram
    unit: float | None = None

    @property
    def n_bytes(self) -> int:
        """The memory that the summary takes, nearly."""
        histogram = self.histogram
        return 3 * histogram.values.nbytes + histogram.keys.nbytes + histogram.counts.nbytes


def summarise_matrix(matrix: Matrix, rule: ScaleRule) -> MatrixSummary:
    """Choose the scales of a matrix, and count the weights divided by them.

    Parameters
    ----------
    matrix : Matrix
        The matrix to read.
    rule : ScaleRule
        Which scales it gets.

    Returns
    -------
    MatrixSummary
        Without a `unit`.

    Raises
    ------
    InputError
        If a weight is NaN or infinite, or if there are no weights; the message names the tensor.

    Notes
    -----
    The memory does not depend on the size of the matrix, except for its longest row.
    """
    if rule is ScaleRule.NONE:
        return _summarise_unscaled(matrix)
    moments = moments_of(matrix.rows, matrix.float_format)
    if not math.isfinite(moments.squares_about_mean):
        pieces = (matrix.float_format.upcast(piece) for piece in matrix.rows())
        refuse_not_finite(sum(int((~np.isfinite(piece)).sum()) for piece in pieces), matrix.name)
    scales = choose_scales(matrix.rows, matrix.shape, matrix.float_format, rule)
    if scales is None:
        return _summarise_unscaled(matrix)
    return MatrixSummary(scales, moments, count_divided(matrix, scales))


def count_divided(matrix: Matrix, scales: Scales) -> Histogram:
    """Return the histogram of a matrix divided by its scales.

    Parameters
    ----------
    matrix : Matrix
        The matrix to read; one pass.
    scales : Scales
        Its scales.

    Returns
    -------
    Histogram
        Of keys, see `Scales.divider`.
    """
    keys = scales.divided(matrix.rows, matrix.float_format)
    return collect(keys, FloatFormat.F16, matrix.name)


def _summarise_unscaled(matrix: Matrix) -> MatrixSummary:
    histogram = collect(matrix.rows, matrix.float_format, matrix.name)
    return MatrixSummary(None, histogram.moments, histogram)
