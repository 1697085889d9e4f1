"""Which price of a bit takes a whole model to an asked size.

With one price for the model, the last bit spent on each matrix takes off the same damage, so no
exchange of bits between matrices could lower the sum: that is what makes an allocation the best one
(Shoham and Gersho 1988). All matrices are clustered at a few prices, without being coded, and what
they would take is added up; between the prices, bits are nearly linear in the price's logarithm.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.source.source import Source
from isotone.codec.packed import RANS_STATE_BYTES
from isotone.core.clustering.entropy import coded_bits
from isotone.core.fit import Matrix, MatrixSummary, cluster_counted, count
from isotone.core.scales.balancing import Scales
from isotone.engine.progress import Progress
from isotone.engine.tasks import Engine
from isotone.pipeline.allocate.each_matrix import Group, each_matrix
from isotone.pipeline.allocate.importance import Importance
from isotone.pipeline.allocate.planned_matrix import PlannedMatrix
from isotone.plan.settings import MatrixSettings
from isotone.plan.tensors import Clustered

_REFERENCE_PRICE, _REFERENCE_BITS = 0.02, 3.3  # of a normal distribution
_SPREAD = np.array([-1.5, -0.5, 0.5, 1.5]) * math.log(1.5)  # of the prices of the first survey
_MOST_PRICES = 24
_KEPT_BYTES = 256 << 20  # of matrices in short
_SMOOTH = 8
_CLOSE = 0.001  # relative to the size: near enough
_FARTHER = 2.0  # at least, in logarithms, from all prices tried to the next one: 1.4 bits
_LOWEST, _HIGHEST = math.log(1e-12), math.log(1e6)  # where everything is exact, or one value
_NARROW = 1e-3  # logarithms of prices between which there must be a jump
_KEEPING = threading.Lock()
_CODER_BITS = 0.004  # a weight: what 12-bit frequencies cost


@dataclass(frozen=True)
class SharedLambda:
    """One price for the model, turned into that of each tensor by a measure of damage."""

    model: float
    importance: Importance

    def apply(self, plan: Clustered) -> Clustered:
        """The plan at this price."""
        lambda_ = self.model / self.importance(plan.tensor)
        return replace(plan, settings=replace(plan.settings, lambda_=lambda_))


Counter = Callable[[PlannedMatrix, Matrix], MatrixSummary]
"""Gives a matrix in short."""


def count_plainly(matrix: PlannedMatrix, whole: Matrix) -> MatrixSummary:
    """By its weights alone."""
    return count(whole, matrix.plan.settings.scale)


RateProbe = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Bits a weight that a whole model would take at each of some prices."""


@contextmanager
def rate_probe(
    engine: Engine,
    source: Source,
    groups: Sequence[Group],
    importance: Importance,
    progress: Progress,
    counter: Counter = count_plainly,
) -> Iterator[RateProbe]:
    """Workers that cluster all matrices at some prices, and what adds up their bits.

    counter: gives matrices in short; pickles. Each worker keeps those from one survey to the next,
    as many as a fixed budget holds.
    """
    n_weights = sum(plan.tensor.n_weights for group in groups for plan in group)
    prober = _Prober(source, importance, counter)
    with each_matrix(engine, prober.bits, groups, progress) as ask:

        def bits_at(lambdas: NDArray[np.float64]) -> NDArray[np.float64]:
            found = ask("surveying", tuple(lambdas.tolist()))
            # Exactly rounded, so that the price does not depend on who surveyed what.
            return np.array([math.fsum(column) for column in zip(*found, strict=True)]) / n_weights

        yield bits_at


def lambda_for(bits: float, bits_at: RateProbe) -> float:
    """The price at which a model takes so many bits a weight on disk.

    Where even the finest clustering takes fewer (a matrix of three distinct values needs no more
    than 1.6 bits), a price low enough for that. Where the size jumps over the one that is asked
    for, as it may with few or odd matrices, the price on the nearer side.

    Cost: a survey reads every matrix up to five times, and clusters it at each price. Most models
    need one at four prices and one to three at a single one; those read again only what 256 MB did
    not hold in short, a few hundred matrices. Beyond that, memory does not depend on the model.
    Raises InputError as `core.fit.count` does.
    """
    known: dict[float, float] = {}  # bits a weight by the logarithm of the price
    centre = math.log(_REFERENCE_PRICE) + (_REFERENCE_BITS - bits) * math.log(4.0)
    wanted: NDArray[np.float64] | None = centre + _SPREAD
    while wanted is not None and len(known) < _MOST_PRICES:
        found = bits_at(np.exp(wanted))
        known |= dict(zip(wanted.tolist(), found.tolist(), strict=True))
        wanted = _next(known, bits)
    return math.exp(min(known, key=lambda log: (abs(known[log] - bits), log)))


def _next(known: dict[float, float], bits: float) -> NDArray[np.float64] | None:
    """What price to try, given the bits that others led to; None where one of those will do."""
    if any(abs(found - bits) <= _CLOSE * bits for found in known.values()):
        return None
    logs = sorted(known)
    low = max((log for log in logs if known[log] > bits), default=None)
    high = min((log for log in logs if known[log] < bits), default=None)
    extent = max(logs[-1] - logs[0], _FARTHER)
    if low is None:
        return np.array([logs[0] - extent]) if logs[0] > _LOWEST else None
    if high is None:
        return np.array([logs[-1] + extent]) if logs[-1] < _HIGHEST else None
    if abs(high - low) < _NARROW:
        return None
    share = 0.5  # what is not met soon has a jump to it, which halving finds soonest
    if len(known) < _SMOOTH:
        share = (known[low] - bits) / (known[low] - known[high])
    return np.array([low + (high - low) * min(max(share, 0.1), 0.9)])


def fixed_bits(matrix: PlannedMatrix, scales: Scales | None) -> float:
    """Bits of one matrix that do not depend on its clusters."""
    layout = matrix.plan.layout
    bits = 8.0 * layout.header_bytes / matrix.plan.n_matrices
    bits += 8.0 * RANS_STATE_BYTES * layout.chunks_a_matrix
    bits += 0 if scales is None else scales.stored_bits
    return bits + _CODER_BITS * layout.matrix_weights


class _Prober:
    """Clusters a matrix at some prices, and adds up what it would take.

    Matrices in short are kept, as many as a fixed budget holds.
    """

    def __init__(self, source: Source, importance: Importance, counter: Counter) -> None:
        self._source, self._damage, self._counter = source, importance, counter
        self._counted: dict[tuple[str, int], MatrixSummary] = {}
        self._budget = _KEPT_BYTES

    def bits(self, matrix: PlannedMatrix, lambdas: Sequence[float]) -> list[float]:
        """Bits of a matrix at each price; called from several threads."""
        settings = [
            SharedLambda(lambda_, self._damage).apply(matrix.plan).settings for lambda_ in lambdas
        ]
        whole = matrix.read_from(self._source)
        key = (matrix.plan.tensor.name, matrix.index)
        counted = self._counted.get(key)
        if counted is None:
            counted = self._counter(matrix, whole)
            self._keep(key, counted)
        return _bits_of(matrix, whole, counted, settings)

    def _keep(self, key: tuple[str, int], counted: MatrixSummary) -> None:
        with _KEEPING:
            if counted.n_bytes <= self._budget:
                self._budget -= counted.n_bytes
                self._counted[key] = counted


def _bits_of(
    matrix: PlannedMatrix, whole: Matrix, counted: MatrixSummary, settings: Sequence[MatrixSettings]
) -> list[float]:
    """Bits of one matrix with each of some settings, all that it takes on disk included."""
    value_bits = 8 * whole.float_format.itemsize
    fixed = fixed_bits(matrix, counted.scales)
    coded = []
    for each in settings:
        assigned = cluster_counted(counted, whole, each.method)
        coded.append(coded_bits(assigned, value_bits, whole.n_chunks))
    return [bits + fixed for bits in coded]
