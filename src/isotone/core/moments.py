"""Mean and spread of the weights of a matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from isotone import _native
from isotone.core.float_format import Bits, FloatFormat


@dataclass(frozen=True)
class Moments:
    """The first two moments of a matrix's weights.

    Attributes
    ----------
    n_weights : int
        The number of weights.
    mean : float
        Their mean.
    squares_about_mean : float
        The sum of their squared differences from the mean.
    """

    n_weights: int
    mean: float
    squares_about_mean: float

    @property
    def standard_deviation(self) -> float:
        """The root of the mean square about the mean."""
        return math.sqrt(self.squares_about_mean / self.n_weights)

    @property
    def mean_square(self) -> float:
        """The mean square about zero."""
        return self.squares_about_mean / self.n_weights + self.mean**2


def moments_of(chunks: Callable[[], Iterable[Bits]], float_format: FloatFormat) -> Moments:
    """Return the moments of finite weights.

    Parameters
    ----------
    chunks : callable
        Reads the weights from the start in pieces, as bit patterns; called once.
    float_format : FloatFormat
        The format of the patterns.

    Returns
    -------
    Moments
        The sums are taken in float64.
    """
    n, total, squares = 0, 0.0, 0.0
    for piece in chunks():
        piece_sum, piece_squares = _native.moments(
            piece.view("u1"), float_format.native, len(piece)
        )
        n, total, squares = n + len(piece), total + piece_sum, squares + piece_squares
    return Moments(n, total / n, max(squares - total * total / n, 0.0))
