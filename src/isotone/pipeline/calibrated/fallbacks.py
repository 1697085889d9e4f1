"""The matrices that are clustered without their statistics: noted for a resumed job, and recorded.

A note in the output directory under construction keeps what a resumed job should not have to find
again; the record in the manifest tells a user which matrices were not calibrated, and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isotone.checkpoint.staging.staging import Staging
from isotone.engine.progress import Progress
from isotone.engine.tasks import Engine
from isotone.pipeline.allocate.each_matrix import Group
from isotone.pipeline.calibrated.fitter import CalibratedFitter
from isotone.pipeline.calibrated.judge import judge_all
from isotone.plan.tensors import Clustered

_NOTE = "fallbacks"


def note_fallbacks(fitter: CalibratedFitter, staging: Staging) -> None:
    """Note the fallbacks of a job.

    Parameters
    ----------
    fitter : CalibratedFitter
        Has the fallbacks.
    staging : Staging
        The output directory under construction.
    """
    noted = [[*key, reason] for key, reason in sorted(fitter.fallbacks.items())]
    staging.take_note(_NOTE, noted)


def restore_fallbacks(fitter: CalibratedFitter, staging: Staging) -> None:
    """Take over the fallbacks that an earlier run of the same job noted, if it did.

    Parameters
    ----------
    fitter : CalibratedFitter
        Receives the fallbacks.
    staging : Staging
        The output directory under construction.
    """
    noted = staging.note(_NOTE)
    if noted is not None:
        fitter.fallbacks = {(name, matrix): reason for name, matrix, reason in noted}


def find_fallbacks(
    fitter: CalibratedFitter,
    groups: Sequence[Group],
    staging: Staging,
    engine: Engine,
    progress: Progress,
) -> None:
    """Find and note the matrices that their statistics do not help, unless that has been done.

    Parameters
    ----------
    fitter : CalibratedFitter
        Clusters the matrices, and receives the fallbacks.
    groups : sequence of tuple of Clustered
        The tensors; each group is one task.
    staging : Staging
        The output directory under construction.
    engine : Engine
        Where the work runs.
    progress : Progress
        Is told how many dense bytes are done.
    """
    if staging.note(_NOTE) is None:
        judge_all(fitter, groups, engine, progress)
        note_fallbacks(fitter, staging)


def calibration_record(fitter: CalibratedFitter, plans: Sequence[Clustered]) -> dict[str, Any]:
    """Return what the manifest records of a calibration.

    Parameters
    ----------
    fitter : CalibratedFitter
        Has the fallbacks and the statistics.
    plans : sequence of Clustered
        The tensors that are clustered.

    Returns
    -------
    dict
        The text, the number of matrices, how many of them are calibrated, which share of the
        weights of linear layers those hold, and the names of the others by the reasons.
    """
    about = {key: value for key, value in fitter.statistics.about.items() if key != "source"}
    reasons: dict[str, list[str]] = {}
    stacks = {plan.tensor.name for plan in plans if plan.n_matrices > 1}
    for (name, matrix), reason in sorted(fitter.fallbacks.items()):
        shown = f"{name}[{matrix}]" if name in stacks else name
        reasons.setdefault(reason, []).append(shown)
    n_matrices = sum(plan.n_matrices for plan in plans)
    return about | {
        "n_matrices": n_matrices,
        "n_calibrated": n_matrices - len(fitter.fallbacks),
        "share": fitter.share(plans),
        "fallbacks": reasons,
    }
