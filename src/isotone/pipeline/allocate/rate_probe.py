"""The size of a whole model at given Lagrange multipliers, found without coding any ranks.

All matrices are clustered at each multiplier, and the rate model adds up what they would take on
disk. That needs no more of a matrix than its summary: scales, moments and a histogram. Summaries
are kept from one probe to the next, as many as a fixed amount of memory holds.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.source.source import Source
from isotone.core.fit import cluster_summary
from isotone.core.matrix import Matrix, MatrixSummary, summarise_matrix
from isotone.core.rate import overhead_bits
from isotone.core.scales.scales import Scales
from isotone.engine.progress import Progress
from isotone.engine.tasks import Engine
from isotone.pipeline.allocate.each_matrix import Group, each_matrix
from isotone.pipeline.allocate.importance import Importance, SharedLambda
from isotone.pipeline.allocate.planned_matrix import PlannedMatrix
from isotone.plan.settings import MatrixSettings

_KEPT_BYTES = 256 << 20  # of matrix summaries, in each worker
_KEEPING = threading.Lock()

Summarise = Callable[[PlannedMatrix, Matrix], MatrixSummary]
"""Summarises a matrix: chooses its scales and makes the histogram of the divided weights."""

RateProbe = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Takes Lagrange multipliers `[n]`, and returns the bits per weight of a whole model at each."""


def summarise_plainly(matrix: PlannedMatrix, weights: Matrix) -> MatrixSummary:
    """Summarise a matrix by its weights alone, without calibration.

    Parameters
    ----------
    matrix : PlannedMatrix
        The matrix in its plan.
    weights : Matrix
        The matrix as it is read.

    Returns
    -------
    MatrixSummary
        The summary.
    """
    return summarise_matrix(weights, matrix.plan.settings.scale)


@contextmanager
def rate_probe(
    engine: Engine,
    source: Source,
    groups: Sequence[Group],
    importance: Importance,
    progress: Progress,
    summarise: Summarise = summarise_plainly,
) -> Iterator[RateProbe]:
    """Start workers that cluster all matrices at given multipliers, for the length of a `with`.

    Parameters
    ----------
    engine : Engine
        Where the workers run.
    source : Source
        The model.
    groups : sequence of tuple of Clustered
        The tensors; each group is one task.
    importance : Importance
        The importance of each tensor.
    progress : Progress
        Is told how many dense bytes are done.
    summarise : callable
        Summarises a matrix. It pickles where workers are other processes.

    Yields
    ------
    RateProbe
        The size of the model as a function of the multiplier.
    """
    n_weights = sum(plan.tensor.n_weights for group in groups for plan in group)
    prober = _Prober(source, importance, summarise)
    with each_matrix(engine, prober.bits, groups, progress) as compute_all:

        def bits_at(lambdas: NDArray[np.float64]) -> NDArray[np.float64]:
            found = compute_all("estimating the size", tuple(lambdas.tolist()))
            # Exactly rounded sums, so that the result does not depend on who computed what.
            return np.array([math.fsum(column) for column in zip(*found, strict=True)]) / n_weights

        yield bits_at


def fixed_bits(matrix: PlannedMatrix, scales: Scales | None) -> float:
    """Return the bits of one matrix on disk that do not depend on its clusters.

    Parameters
    ----------
    matrix : PlannedMatrix
        The matrix.
    scales : Scales or None
        Its scales.

    Returns
    -------
    float
        The bits of headers, coder states, scales, and what 12-bit frequencies cost.
    """
    layout = matrix.plan.layout
    return overhead_bits(
        layout.header_bytes,
        matrix.plan.n_matrices,
        layout.chunks_a_matrix,
        layout.matrix_weights,
        0 if scales is None else scales.stored_bits,
    )


class _Prober:
    """Clusters a matrix at some multipliers, and adds up what it would take on disk."""

    def __init__(self, source: Source, importance: Importance, summarise: Summarise) -> None:
        self._source, self._importance, self._summarise = source, importance, summarise
        self._summaries: dict[tuple[str, int], MatrixSummary] = {}
        self._budget = _KEPT_BYTES

    def bits(self, matrix: PlannedMatrix, lambdas: Sequence[float]) -> list[float]:
        """Return the bits of a matrix at each multiplier; called from several threads."""
        settings = [
            SharedLambda(lambda_, self._importance).apply(matrix.plan).settings
            for lambda_ in lambdas
        ]
        weights = matrix.read_from(self._source)
        summary = self._summaries.get(matrix.key)
        if summary is None:
            summary = self._summarise(matrix, weights)
            self._keep(matrix.key, summary)
        return _bits_of(matrix, weights, summary, settings)

    def _keep(self, key: tuple[str, int], summary: MatrixSummary) -> None:
        with _KEEPING:
            if summary.n_bytes <= self._budget:
                self._budget -= summary.n_bytes
                self._summaries[key] = summary


def _bits_of(
    matrix: PlannedMatrix,
    weights: Matrix,
    summary: MatrixSummary,
    settings: Sequence[MatrixSettings],
) -> list[float]:
    """Return all bits that one matrix takes on disk, with each of some settings."""
    fixed = fixed_bits(matrix, summary.scales)
    coded = []
    for each in settings:
        assigned = cluster_summary(summary, weights, each.method)
        coded.append(weights.rate.clustered_bits(assigned.counts, assigned.n_protected))
    return [bits + fixed for bits in coded]
