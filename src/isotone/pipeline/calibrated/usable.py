"""Which matrices have statistics that are of use, and what an ordinary error costs by them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isotone.calibration.statistics import Statistics
from isotone.checkpoint.source.source import Source
from isotone.checkpoint.source.vocabulary import has_row_per_token
from isotone.core.calibrated.sensitivity import Sensitivity
from isotone.core.moments import moments_of
from isotone.errors import InputError
from isotone.pipeline.allocate.each_matrix import matrices_of
from isotone.plan.tensors import Clustered

MatrixKey = tuple[str, int]
"""The name of a tensor, and the position of a matrix in it."""


@dataclass(frozen=True)
class Usability:
    """What the statistics of a model are worth.

    Attributes
    ----------
    fallbacks : dict of (str, int) to str
        The matrices whose statistics are of no use, and why.
    ordinary : float
        The expected loss of a relative error of 1 in one weight of an ordinary matrix.
    """

    fallbacks: dict[MatrixKey, str]
    ordinary: float


def usability_of(source: Source, statistics: Statistics, plans: Sequence[Clustered]) -> Usability:
    """Read the statistics of all matrices.

    Parameters
    ----------
    source : Source
        The model.
    statistics : Statistics
        The statistics of its matrices.
    plans : sequence of Clustered
        The tensors to be clustered.

    Returns
    -------
    Usability
        What they are worth.

    Raises
    ------
    InputError
        If they are of use for none of the matrices of linear layers.
    """
    fallbacks: dict[MatrixKey, str] = {}
    losses = []
    for matrix in matrices_of(plans):
        sensitivity = statistics.sensitivity(*matrix.key, matrix.plan.matrix_shape[0])
        reason = _reason(sensitivity)
        if reason is not None or sensitivity is None:
            fallbacks[matrix.key] = reason or ""
            continue
        weights = matrix.read_from(source)
        moments = moments_of(weights.rows, weights.float_format)
        losses.append(sensitivity.unit_loss / moments.n_weights * moments.mean_square)
    if not losses or calibrated_share(source, plans, fallbacks) == 0.0:
        counts = Counter(fallbacks.values()).most_common()
        reasons = ", ".join(f"{reason} ({count})" for reason, count in counts)
        raise InputError(
            f"none of the matrices of linear layers can be calibrated: {reasons}; compress "
            "without --calibrate"
        )
    return Usability(fallbacks, float(np.median(losses)))


def calibrated_share(
    source: Source, plans: Sequence[Clustered], fallbacks: dict[MatrixKey, str]
) -> float:
    """Return which share of the weights of linear layers is clustered by statistics.

    Parameters
    ----------
    source : Source
        The model.
    plans : sequence of Clustered
        The tensors that are clustered; those with a row for each token do not count.
    fallbacks : dict of (str, int) to str
        The matrices that are clustered without statistics.

    Returns
    -------
    float
        0 to 1; 1 if there are no such weights.
    """
    total = calibrated = 0
    for matrix in matrices_of(plans):
        if not has_row_per_token(source, matrix.plan.tensor):
            total += matrix.plan.layout.matrix_weights
            if matrix.key not in fallbacks:
                calibrated += matrix.plan.layout.matrix_weights
    return calibrated / total if total else 1.0


def _reason(sensitivity: Sensitivity | None) -> str | None:
    """Return why the statistics of a matrix are of no use, or None where they are."""
    if sensitivity is None:
        return "no layer was seen to use it"
    if (flaw := sensitivity.flaw()) is not None:
        return flaw
    return None
