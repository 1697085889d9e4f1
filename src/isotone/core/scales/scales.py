"""The scales of one matrix, and the matrix divided by them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from isotone import _native
from isotone.core.float_format import Bits, FloatFormat
from isotone.core.rate import SCALE_CODE_BITS
from isotone.core.scales.codes import decode_scales

LARGEST_KEY = 65504.0
"""The largest value that a key can stand for; everything beyond gets its key."""

Rows: TypeAlias = Callable[[], Iterable[Bits]]
"""Reads a matrix from its start in pieces of whole rows; called once for each pass over it."""


@dataclass(frozen=True)
class Scales:
    """The scales of one matrix; the weights divided by them are about 1.

    Attributes
    ----------
    row : uint8 array, `[rows]`, optional
        Codes of the rows' scales, or None.
    column : uint8 array, `[columns]`, optional
        Codes of the columns' scales, or None.
    unit : float
        A power of two that all rows share; it is folded into the codebook.
    n_rows, n_columns : int
        The shape of the matrix.
    """

    row: NDArray[np.uint8] | None
    column: NDArray[np.uint8] | None
    unit: float
    n_rows: int
    n_columns: int

    @property
    def stored_bits(self) -> int:
        """Bits that the scales take on disk."""
        return SCALE_CODE_BITS * sum(len(s) for s in (self.row, self.column) if s is not None)

    def row_scales(self) -> NDArray[np.float32]:
        """Return the scales of the rows without the unit, `[rows]`; ones if there are none."""
        return np.ones(self.n_rows, np.float32) if self.row is None else decode_scales(self.row)

    def column_scales(self) -> NDArray[np.float32]:
        """Return the scales of the columns, `[columns]`; ones if there are none."""
        if self.column is None:
            return np.ones(self.n_columns, np.float32)
        return decode_scales(self.column)

    def products(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return unit * row scales, `[rows]`, and column scales, `[columns]`, in float64."""
        row = self.unit * self.row_scales().astype(np.float64)
        return row, self.column_scales().astype(np.float64)

    def divider(self, float_format: FloatFormat) -> Callable[[Bits, int], Bits]:
        """Return a function that divides weights by their scales.

        Parameters
        ----------
        float_format : FloatFormat
            The format of the weights.

        Returns
        -------
        callable
            Takes bit patterns of weights, and the position of the first in the matrix; returns
            keys: patterns of half precision, with 11 significant bits and 0 below 2^-14, which is
            much finer than any distance between centroids.
        """
        row, column = self.products()
        inverse_row = (1.0 / row).astype(np.float32)
        inverse_column = (1.0 / column).astype(np.float32)

        def divide(bits: Bits, position: int) -> Bits:
            keys = np.empty(len(bits), np.uint16)
            _native.divide(
                bits.view(np.uint8),
                float_format.native,
                position,
                inverse_row,
                inverse_column,
                keys,
            )
            return keys

        return divide

    def divided(self, rows: Rows, float_format: FloatFormat) -> Rows:
        """Return the matrix as keys, read in the same pieces.

        Parameters
        ----------
        rows : callable
            Reads the matrix in pieces of whole rows, as bit patterns.
        float_format : FloatFormat
            The format of the weights.

        Returns
        -------
        callable
            Reads the keys in the same way, see `divider`.
        """
        divide = self.divider(float_format)

        def read() -> Iterator[Bits]:
            position = 0
            for piece in rows():
                yield divide(piece, position)
                position += len(piece)

        return read
