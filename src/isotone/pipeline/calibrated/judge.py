"""Decides for each matrix, by held-out text, whether its statistics help.

A matrix is clustered with and without its statistics at the same Lagrange multiplier, and the way
with the smaller expected loss on the held-out text is taken. Sizes are made equal by the rule that
one more bit per weight quarters the loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from isotone.core.calibrated.gptq import errors_of
from isotone.core.calibrated.sensitivity import Sensitivity
from isotone.core.fit import Fit
from isotone.core.matrix import Matrix
from isotone.engine.progress import Progress
from isotone.engine.tasks import Engine
from isotone.pipeline.allocate.each_matrix import Group, each_matrix
from isotone.pipeline.allocate.planned_matrix import PlannedMatrix
from isotone.pipeline.calibrated.fitter import NO_HELP, CalibratedFitter, bits_of
from isotone.pipeline.calibrated.usable import MatrixKey


@dataclass(frozen=True)
class Judgement:
    """How one matrix is clustered from now on.

    Attributes
    ----------
    key : (str, int)
        The name of the tensor, and the position of the matrix in it.
    reason : str or None
        Why the matrix is clustered without its statistics; None if they are used.
    bits : float
        The bits that it takes on disk.
    """

    key: MatrixKey
    reason: str | None
    bits: float


def judge_all(
    fitter: CalibratedFitter, groups: Sequence[Group], engine: Engine, progress: Progress
) -> float:
    """Cluster every matrix with and without its statistics, and note where they do not help.

    Parameters
    ----------
    fitter : CalibratedFitter
        Clusters the matrices. Fallbacks that are found are added to it.
    groups : sequence of tuple of Clustered
        The tensors; each group is one task.
    engine : Engine
        Where the work runs.
    progress : Progress
        Is told how many dense bytes are done.

    Returns
    -------
    float
        The bits of all matrices together, each clustered the better way.

    Notes
    -----
    The cost is a few times `rows * columns**2` multiplications for each matrix.
    """
    with each_matrix(engine, partial(_judge, fitter), groups, progress) as compute_all:
        judged = compute_all("validating the calibration")
    fitter.fallbacks |= {each.key: each.reason for each in judged if each.reason is not None}
    return math.fsum(each.bits for each in judged)


def bits_of_all(
    fitter: CalibratedFitter, groups: Sequence[Group], engine: Engine, progress: Progress
) -> float:
    """Cluster every matrix, and add up what they take on disk.

    Parameters
    ----------
    fitter : CalibratedFitter
        Clusters the matrices.
    groups : sequence of tuple of Clustered
        The tensors; each group is one task.
    engine : Engine
        Where the work runs.
    progress : Progress
        Is told how many dense bytes are done.

    Returns
    -------
    float
        The bits of all matrices together.
    """
    with each_matrix(engine, fitter.bits, groups, progress) as compute_all:
        return math.fsum(compute_all("correcting the size"))


def _judge(fitter: CalibratedFitter, matrix: PlannedMatrix) -> Judgement:
    weights, fit = fitter.read(matrix), fitter.fit(matrix)
    bits = bits_of(matrix, weights, fit)
    if matrix.key in fitter.fallbacks:
        return Judgement(matrix.key, fitter.fallbacks[matrix.key], bits)
    plain = fitter.fit_plainly(matrix, weights)
    plain_bits = bits_of(matrix, weights, plain)
    held_out = fitter.statistics.held_out(*matrix.key, weights.shape[0])
    assert held_out is not None
    loss, plain_loss = (_expected_loss(weights, each, held_out) for each in (fit, plain))
    n_weights = matrix.plan.layout.matrix_weights
    if loss * 4.0 ** ((bits - plain_bits) / n_weights) < plain_loss:
        return Judgement(matrix.key, None, bits)
    return Judgement(matrix.key, NO_HELP, plain_bits)


def _expected_loss(matrix: Matrix, fit: Fit, sensitivity: Sensitivity) -> float:
    """Return what the errors of a clustered matrix cost, piece by piece of its rows."""
    return math.fsum(
        sensitivity.of_rows(first, len(errors)).expected_loss(errors)
        for first, errors in errors_of(matrix, fit)
    )
