"""Which price of a bit takes a whole model to an asked size.

With one price for the model, the last bit spent on each matrix takes off the same damage, so no
exchange of bits between matrices could lower the sum: that is what makes an allocation the best one
(Shoham and Gersho 1988). All matrices are clustered at a few prices, without being coded, and what
they would take is added up; between the prices, bits are nearly linear in the price's logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.plan import Clustered, Settings
from isotone.checkpoint.source import Source, TensorInfo
from isotone.codec.packed import RANS_STATE_BYTES
from isotone.core.entropy import EntropyMethod, coded_bits
from isotone.core.fit import count
from isotone.engine.local import Progress, Workers
from isotone.errors import InputError
from isotone.pipeline.planned_matrix import PlannedMatrix

MIN_BITS, MAX_BITS = 1.0, 8.0

_REFERENCE_PRICE, _REFERENCE_BITS = 0.02, 3.3  # of a normal distribution
_SPREAD = np.array([1.5, 0.5, -0.5, -1.5]) * math.log(1.5)  # of the prices of one survey
_SURVEYS = 4
_CODER_BITS = 0.004  # a weight: what 12-bit frequencies cost

Damage = Callable[[TensorInfo], float]
"""What an error of one weight of a tensor does, relative to the mean square of its weights."""


def relative_error(_tensor: TensorInfo) -> float:
    """The damage that is assumed without data: the relative error, alike in every matrix."""
    return 1.0


@dataclass(frozen=True)
class Prices:
    """One price for the model, turned into that of each tensor by a measure of damage."""

    model: float
    damage: Damage = relative_error

    def apply(self, plan: Clustered) -> Clustered:
        """The plan at this price."""
        price = self.model / self.damage(plan.tensor)
        return replace(plan, settings=replace(plan.settings, price=price))


def check_bits(bits: float) -> None:
    """Raise InputError for a size that no price leads to."""
    if not MIN_BITS <= bits <= MAX_BITS:
        raise InputError(f"bits is {bits}; expected {MIN_BITS:g} to {MAX_BITS:g} bits a weight")


def price_for(
    bits: float,
    source: Source,
    plans: Sequence[Clustered],
    workers: Workers,
    progress: Progress,
    damage: Damage = relative_error,
) -> float:
    """The price at which all the plans together take so many bits a weight on disk.

    Where even the finest clustering takes fewer (a matrix of three distinct values needs no more
    than 1.6 bits), the lowest price that was tried.

    Cost: reads every matrix once to three times, and clusters it four times; mostly one survey is
    enough. Memory does not depend on the model. Raises InputError as `core.fit.count` does.
    """
    n_weights = sum(plan.tensor.n_weights for plan in plans)
    centre = math.log(_REFERENCE_PRICE) + (_REFERENCE_BITS - bits) * math.log(4.0)
    for _ in range(_SURVEYS):
        prices = np.exp(centre + _SPREAD)
        found = _survey(prices, source, plans, workers, progress, damage) / n_weights
        if found[0] <= bits <= found[-1]:
            break
        slope = (found[-1] - found[0]) / (_SPREAD[-1] - _SPREAD[0])
        nearest = found[-1] if bits > found[-1] else found[0]
        if abs(slope) < 0.05:  # nothing more to be had, or next to nothing
            break
        at = centre + (_SPREAD[-1] if bits > found[-1] else _SPREAD[0])
        centre = at + (bits - nearest) / slope
    return float(np.exp(centre + _interpolated(bits, found)))


def _interpolated(bits: float, found: NDArray[np.float64]) -> float:
    """Where on _SPREAD so many bits would be found, by a polynomial through what was."""
    coefficients = np.polyfit(found - bits, _SPREAD, min(len(np.unique(found)), 4) - 1)
    return float(np.clip(coefficients[-1], _SPREAD.min(), _SPREAD.max()))


def _survey(
    prices: NDArray[np.float64],
    source: Source,
    plans: Sequence[Clustered],
    workers: Workers,
    progress: Progress,
    damage: Damage,
) -> NDArray[np.float64]:
    """Bits that all matrices would take at each of some prices."""
    progress.begin("surveying", sum(plan.tensor.n_bytes for plan in plans))
    matrices = (PlannedMatrix(plan, i) for plan in plans for i in range(plan.n_matrices))

    def survey(matrix: PlannedMatrix) -> tuple[int, NDArray[np.float64]]:
        settings = [Prices(price, damage).apply(matrix.plan).settings for price in prices]
        found = _bits_at(matrix, source, settings)
        return matrix.plan.tensor.n_bytes // matrix.plan.n_matrices, found

    total = np.zeros(len(prices))
    for n_bytes, found in workers.map(survey, matrices, ahead=2 * workers.n_workers):
        total += found
        progress.advance(n_bytes)
    return total


def _bits_at(
    matrix: PlannedMatrix, source: Source, settings: Sequence[Settings]
) -> NDArray[np.float64]:
    """Bits of one matrix, all that it takes on disk included."""
    plan = matrix.plan
    whole = matrix.read_from(source)
    counted = count(whole, plan.settings.scale)
    value_bits = 8 * whole.float_format.itemsize
    fixed = 8.0 * plan.layout.header_bytes / plan.n_matrices
    fixed += 8.0 * RANS_STATE_BYTES * whole.n_chunks
    fixed += 0 if counted.scales is None else counted.scales.stored_bits
    fixed += _CODER_BITS * plan.layout.matrix_weights
    coded = []
    for each in settings:
        method = each.method
        assert isinstance(method, EntropyMethod)
        assigned = method.assign(counted.points, value_bits, whole.n_chunks)
        coded.append(coded_bits(assigned, value_bits, whole.n_chunks))
    return np.array(coded) + fixed
