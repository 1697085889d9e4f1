"""Finds the Lagrange multiplier at which calibrated matrices take a size that is asked for.

GPTQ error feedback changes how often each rank occurs. So the multiplier is searched without it
first, as for plain clustering, and then corrected by the size that is measured with it.
"""

from __future__ import annotations

import math

from isotone.engine.progress import Progress
from isotone.engine.tasks import Engine
from isotone.pipeline.allocate.importance import Importance, SharedLambda
from isotone.pipeline.allocate.rate_probe import rate_probe
from isotone.pipeline.allocate.rate_search import lambda_for
from isotone.pipeline.calibrated.fitter import CalibratedFitter
from isotone.pipeline.calibrated.judge import bits_of_all, judge_all
from isotone.plan.job import JobPlan
from isotone.plan.tensors import Clustered

_CLOSE = 0.0015  # relative to the size: near enough
_MOST_CORRECTIONS = 5


def calibrated_lambda(
    fitter: CalibratedFitter,
    plan: JobPlan,
    bits: float,
    importance: Importance,
    engine: Engine,
    progress: Progress,
) -> float:
    """Return the Lagrange multiplier at which calibrated matrices take so many bits per weight.

    On the way it is decided which matrices are clustered without their statistics.

    Parameters
    ----------
    fitter : CalibratedFitter
        Clusters the matrices. Fallbacks that are found are added to it.
    plan : JobPlan
        The model and its tensors.
    bits : float
        Bits per weight, 1 to 8.
    importance : Importance
        The importance of each tensor.
    engine : Engine
        Where the work runs.
    progress : Progress
        Is told how many dense bytes are done.

    Returns
    -------
    float
        The multiplier.
    """
    source, groups = plan.source, plan.groups
    with rate_probe(engine, source, groups, importance, progress, fitter.summarise) as bits_at:
        lambda_ = lambda_for(bits, bits_at)
    n_weights = sum(clustered.tensor.n_weights for clustered in plan.clustered)

    def at(lambda_: float) -> list[tuple[Clustered, ...]]:
        return plan.changed(SharedLambda(lambda_, importance).apply).groups

    found = judge_all(fitter, at(lambda_), engine, progress) / n_weights
    measured = {lambda_: found}
    while abs(found - bits) > _CLOSE * bits and len(measured) <= _MOST_CORRECTIONS:
        lambda_ *= _correction(measured, bits)
        found = bits_of_all(fitter, at(lambda_), engine, progress) / n_weights
        measured[lambda_] = found
    return min(measured, key=lambda each: (abs(measured[each] - bits), each))


def _correction(measured: dict[float, float], bits: float) -> float:
    """Return by what to multiply the last multiplier.

    It follows the line through the last two measurements, of bits against the logarithm of the
    multiplier; after a single one, the slope that holds where the spacing of centroids is small.
    """
    slope = -math.log(4.0)
    (lambda_, found), *before = reversed(measured.items())
    if before and abs(before[0][1] - found) > 1e-6:
        seen = math.log(lambda_ / before[0][0]) / (found - before[0][1])
        slope = min(max(seen, 4.0 * slope), slope / 4.0)
    return math.exp(slope * (bits - found))
