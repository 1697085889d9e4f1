"""Factors of the rows and columns of a matrix, found by balancing it.

A weight is `row[i] * column[j] * u`, and u is what gets clustered. The factors are chosen so that
every row and every column of |u| has about the same mean, that of the square roots: alternating
between the two (Sinkhorn and Knopp 1967) settles in a few passes. The result is the same, up to its
factors, for any matrix whose rows and columns were scaled, so what a model's training or folding
left there is taken out, and each row and column gets an error relative to its own size. Balancing
the root mean square instead lets single large weights spread the values of their whole row: on two
models the damage at equal size was a fifth to a third more.

Factors cost bytes. With errors counted relative to the balanced matrix, evenly spaced values over
the *unscaled* one would need

    gain = 1/2 log2 mean(1 / f^2) + mean log2 f

bits a weight more for the same error, f being the factors of the rows, or of the columns (the two
add up). The worst served rows and columns matter more than the mean says: where a few small columns
meet the largest inputs, which is usual, leaving them unscaled was measured to cost many times
that. So factors are used where `_WEIGHT` times the gain pays for their bytes, after what chance
alone would show as a gain is taken off: for n normal weights to a factor, `_NOISE / n` bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from isotone import _native
from isotone.core.float_format import Bits, FloatFormat
from isotone.core.scales.codes import decode_scales, encode_scales
from isotone.errors import InputError

LARGEST_KEY = 65504.0
"""What a key can stand for, and what everything beyond gets."""

_PASSES = 3
_WEIGHT = 8.0
_NOISE = 1.04  # 4 (E|z| / (E sqrt|z|)^2 - 1) / ln 2, of a standard normal z
_CAUTION = 1.5
_CODE_BITS = 8
_FEWEST_WEIGHTS = 32  # that share a factor: a quarter of a bit for each
_FEW_VALUES = 256  # that a codebook could hold exactly
_LARGEST = 2.0**15  # of a factor, relative to the unit
_UNITS = (2.0**-100, 2.0**100)

Rows = Callable[[], Iterable[Bits]]
"""Reads a matrix from its start in pieces of whole rows; called once for each pass over it."""


class ScaleRule(Enum):
    """Which factors a matrix gets; AUTO: those that pay for their bytes."""

    AUTO = "auto"
    NONE = "none"
    ROW = "row"
    BOTH = "both"

    @classmethod
    def parse(cls, text: str) -> ScaleRule:
        """Read a rule; raises InputError where it is none."""
        for rule in cls:
            if rule.value == text:
                return rule
        raise InputError(f"scale is {text!r}; expected auto, none, row or both")


@dataclass(frozen=True)
class Scales:
    """The factors of one matrix; the weights divided by them are about 1.

    row: [rows] uint8 codes, or None. column: [columns] uint8 codes, or None.
    unit: a power of two that all rows share; it is folded into the codebook.
    n_columns: of the matrix.
    """

    row: NDArray[np.uint8] | None
    column: NDArray[np.uint8] | None
    unit: float
    n_rows: int
    n_columns: int

    @property
    def stored_bits(self) -> int:
        """What the factors take on disk."""
        return _CODE_BITS * sum(len(s) for s in (self.row, self.column) if s is not None)

    def row_scales(self) -> NDArray[np.float32]:
        """[rows]; ones where there are none."""
        return np.ones(self.n_rows, np.float32) if self.row is None else decode_scales(self.row)

    def column_scales(self) -> NDArray[np.float32]:
        """[columns]; ones where there are none."""
        if self.column is None:
            return np.ones(self.n_columns, np.float32)
        return decode_scales(self.column)

    def divider(self, float_format: FloatFormat) -> Callable[[Bits, int], Bits]:
        """A function from weights and the position of the first to the keys of what is clustered.

        Keys are patterns of half precision, 11 significant bits, and 0 below 2^-14: much finer
        than any distance between centroids.
        """
        inverse_row = (1.0 / (self.unit * self.row_scales().astype(np.float64))).astype(np.float32)
        inverse_column = (1.0 / self.column_scales().astype(np.float64)).astype(np.float32)

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
        """The matrix as keys, read in the same pieces."""
        divide = self.divider(float_format)

        def read() -> Iterator[Bits]:
            position = 0
            for piece in rows():
                yield divide(piece, position)
                position += len(piece)

        return read


def choose_scales(
    rows: Rows, shape: tuple[int, int], float_format: FloatFormat, rule: ScaleRule
) -> Scales | None:
    """The factors of a finite matrix by a rule, or None where it gets none.

    None as well, whatever the rule, where factors span more than codes can say, or the weights are
    at the ends of what float32 holds. With AUTO, also for so few distinct values that a codebook
    can hold them all.

    Cost: up to four passes over the weights. Rows and columns of zeros get the factor 1.
    """
    if rule is ScaleRule.NONE or (rule is ScaleRule.AUTO and _are_few(rows, float_format)):
        return None
    row, column = _balanced(rows, shape, float_format, 1 if rule is ScaleRule.ROW else _PASSES)
    if rule is ScaleRule.AUTO and not _pays(column, shape[0]):
        row, column = _balanced(rows, shape, float_format, 1)
        return _scales(row, None, shape) if _pays(row, shape[1]) else None
    return _scales(row, None if rule is ScaleRule.ROW else column, shape)


def _pays(factors: NDArray[np.float64], n_sharing: int) -> bool:
    """Whether factors, each for so many weights, are worth their bytes."""
    gain = _gain(factors) * n_sharing - _CAUTION * _NOISE
    return n_sharing >= _FEWEST_WEIGHTS and _WEIGHT * gain > _CODE_BITS


def _are_few(rows: Rows, float_format: FloatFormat) -> bool:
    """Whether a matrix has few distinct values; looks no further than needed to know."""
    counter = _native.DistinctCounter(_FEW_VALUES)
    for piece in rows():
        for start in range(0, len(piece), 1 << 14):
            wide = float_format.upcast(piece[start : start + (1 << 14)])
            if not counter.add(wide.view(np.uint32)):
                return False
    return True


def _balanced(
    rows: Rows, shape: tuple[int, int], float_format: FloatFormat, n_passes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Factors of rows and columns after some passes; 0 for those that are all zero."""
    n_rows, n_columns = shape
    row, column = np.empty(n_rows, np.float32), np.ones(n_columns)
    for _ in range(n_passes):
        inverse = np.divide(1.0, column, out=np.zeros(n_columns), where=column > 0)
        column = np.zeros(n_columns)
        start = 0
        for piece in rows():
            stop = start + len(piece) // n_columns
            _native.balance(
                piece.view(np.uint8),
                float_format.native,
                inverse.astype(np.float32),
                row[start:stop],
                column,
            )
            start = stop
        column /= max(int((row > 0).sum()), 1)
    # Means of square roots: their squares have the dimension of a weight.
    return row.astype(np.float64) ** 2, column**2


def _gain(factors: NDArray[np.float64]) -> float:
    """Bits a weight that factors save, errors counted relative to the balanced matrix."""
    used = factors[factors > 0]
    if len(used) == 0:
        return 0.0
    # About the geometric mean, so that nothing overflows.
    logs = np.log2(used)
    logs -= logs.mean()
    return float(0.5 * np.log2(np.mean(np.exp2(-2.0 * logs))))


def _scales(
    row: NDArray[np.float64], column: NDArray[np.float64] | None, shape: tuple[int, int]
) -> Scales | None:
    used = row[row > 0]
    unit = 2.0 ** int(np.frexp(np.median(used))[1]) if len(used) else 1.0
    codable = row.max() <= _LARGEST * unit and _UNITS[0] <= unit <= _UNITS[1]
    if not codable or (column is not None and column.max() > _LARGEST):
        return None
    return Scales(
        row=encode_scales(np.where(row > 0, row / unit, 1.0)),
        column=None if column is None else encode_scales(np.where(column > 0, column, 1.0)),
        unit=unit,
        n_rows=shape[0],
        n_columns=shape[1],
    )
