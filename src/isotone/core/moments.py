"""Mean and spread of a matrix's weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from isotone import _native
from isotone.core.float_format import Bits, FloatFormat


@dataclass(frozen=True)
class Moments:
    """n_weights; their mean; squares_about_mean: the sum of squares about it."""

    n_weights: int
    mean: float
    squares_about_mean: float

    @property
    def standard_deviation(self) -> float:
        """The root of the mean square about the mean."""
        return math.sqrt(self.squares_about_mean / self.n_weights)


def moments_of(chunks: Callable[[], Iterable[Bits]], float_format: FloatFormat) -> Moments:
    """The moments of finite weights; one pass."""
    n, total, squares = 0, 0.0, 0.0
    for piece in chunks():
        piece_sum, piece_squares = _native.moments(
            piece.view("u1"), float_format.native, len(piece)
        )
        n, total, squares = n + len(piece), total + piece_sum, squares + piece_squares
    return Moments(n, total / n, max(squares - total * total / n, 0.0))
