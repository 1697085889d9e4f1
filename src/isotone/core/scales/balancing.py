"""Scales of the rows and columns of a matrix, found by balancing it.

A weight is `row[i] * column[j] * u`, and u is what gets clustered. The scales are chosen so that
every row and every column of |u| has about the same mean of square roots; alternating between rows
and columns (Sinkhorn and Knopp 1967) converges in a few passes. Up to its scales, the result is the
same for any matrix whose rows and columns were multiplied by numbers, so what training or folding
left there is taken out, and each row and column gets an error relative to its own size. Balancing
the root mean square instead would let single large weights spread the values of their whole row: on
two models the damage at equal size was a fifth to a third more.

Scales cost bytes. With errors counted relative to the balanced matrix, evenly spaced values over
the *unscaled* one would need

    gain = 1/2 log2 mean(1 / f^2) + mean log2 f

bits a weight more for the same error, where f are the scales of the rows, or of the columns (the
two add up). The rows and columns that are served worst matter more than the mean says: where a few
small columns meet the largest inputs, which is usual, leaving them unscaled was measured to cost
many times that. So scales are used if `_WEIGHT` times the gain pays for their bytes, after the gain
that chance alone would show is taken off: `_NOISE / n` bits for n normal weights to a scale.
"""

from __future__ import annotations

from enum import Enum

import numpy as np
from numpy.typing import NDArray

from isotone import _native
from isotone.core.float_format import FloatFormat
from isotone.core.rate import SCALE_CODE_BITS
from isotone.core.scales.codes import encode_scales
from isotone.core.scales.scales import Rows, Scales
from isotone.errors import InputError

_PASSES = 3
_WEIGHT = 8.0
_NOISE = 1.04  # 4 (E|z| / (E sqrt|z|)^2 - 1) / ln 2, of a standard normal z
_CAUTION = 1.5
_FEWEST_WEIGHTS = 32  # weights that share a scale: a byte is a quarter of a bit for each of them
_FEW_VALUES = 256  # distinct values that a codebook can hold exactly
_LARGEST = 2.0**15  # the largest scale, relative to the unit
_UNITS = (2.0**-100, 2.0**100)


class ScaleRule(Enum):
    """A rule that says which scales a matrix gets; AUTO: those that pay for their bytes."""

    AUTO = "auto"
    NONE = "none"
    ROW = "row"
    BOTH = "both"

    @classmethod
    def parse(cls, text: str) -> ScaleRule:
        """Return the rule that a text stands for.

        Parameters
        ----------
        text : str
            `auto`, `none`, `row` or `both`.

        Returns
        -------
        ScaleRule
            The rule.

        Raises
        ------
        InputError
            If the text is none of these.
        """
        for rule in cls:
            if rule.value == text:
                return rule
        raise InputError(f"scale is {text!r}; expected auto, none, row or both")


def choose_scales(
    rows: Rows, shape: tuple[int, int], float_format: FloatFormat, rule: ScaleRule
) -> Scales | None:
    """Choose the scales of a matrix by a rule.

    Parameters
    ----------
    rows : callable
        Reads the matrix in pieces of whole rows, as bit patterns of finite weights.
    shape : tuple of int
        Rows and columns.
    float_format : FloatFormat
        The format of the weights.
    rule : ScaleRule
        Which scales the matrix gets.

    Returns
    -------
    Scales or None
        None if the matrix gets no scales. That is so for any rule if the scales span more than
        codes can express, or if the weights are at the ends of what float32 holds; and for AUTO
        also if a codebook can hold all distinct values.

    Notes
    -----
    The cost is up to four passes over the weights. Rows and columns of zeros get the scale 1.

    References
    ----------
    Sinkhorn and Knopp, "Concerning nonnegative matrices and doubly stochastic matrices", Pacific
    Journal of Mathematics 21 (1967).
    """
    if rule is ScaleRule.NONE or (rule is ScaleRule.AUTO and _are_few(rows, float_format)):
        return None
    row, column = _balanced(rows, shape, float_format, 1 if rule is ScaleRule.ROW else _PASSES)
    if rule is ScaleRule.AUTO and not _pays(column, shape[0]):
        row, column = _balanced(rows, shape, float_format, 1)
        return _scales(row, None, shape) if _pays(row, shape[1]) else None
    return _scales(row, None if rule is ScaleRule.ROW else column, shape)


def _pays(scales: NDArray[np.float64], n_sharing: int) -> bool:
    """Whether scales, each shared by so many weights, are worth their bytes."""
    gain = _gain(scales) * n_sharing - _CAUTION * _NOISE
    return n_sharing >= _FEWEST_WEIGHTS and _WEIGHT * gain > SCALE_CODE_BITS


def _are_few(rows: Rows, float_format: FloatFormat) -> bool:
    """Whether a matrix has few distinct values; reads no more of it than needed to know."""
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
    """Scales of rows and columns after some passes; 0 for those that are all zero."""
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
    # These are means of square roots, so their squares have the dimension of a weight.
    return row.astype(np.float64) ** 2, column**2


def _gain(scales: NDArray[np.float64]) -> float:
    """Bits a weight that scales save, with errors counted relative to the balanced matrix."""
    used = scales[scales > 0]
    if len(used) == 0:
        return 0.0
    # Logarithms are taken about the geometric mean, so that nothing overflows.
    logs = np.log2(used)
    logs -= logs.mean()
    return float(0.5 * np.log2(np.mean(np.exp2(-2.0 * logs))))


def _scales(
    row: NDArray[np.float64], column: NDArray[np.float64] | None, shape: tuple[int, int]
) -> Scales | None:
    """Encode balanced scales, or return None if codes cannot express them."""
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
