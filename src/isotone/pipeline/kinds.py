"""What a compressed directory holds, by kind of matrix: the same place in every layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from isotone.pipeline.inspect import TensorReport
from isotone.pipeline.summary import relative_distortion
from isotone.plan.layer_name import LayerName


@dataclass(frozen=True)
class KindSummary:
    """The totals of all clustered tensors of one kind.

    Attributes
    ----------
    kind : str
        Their name without the number of the layer, such as `self_attn.q_proj`.
    n_tensors, n_matrices : int
        Number of tensors, and of the matrices in them: a stack of experts holds many.
    n_weights : int
    k_min, k_max : int
        The fewest and the most centroids of a codebook.
    bits_per_weight : float
        Measured: all bytes of their arrays, times 8, per weight.
    relative_distortion : float or None
        Sum of squared errors, relative to the sum of squares about the means; None where codebooks
        were changed after clustering.
    n_protected : int
        Weights that are stored exactly.
    farthest_deviations : float or None
        The largest distance of a protected weight from the mean of its tensor, in standard
        deviations; None where no weight is protected.
    moved : float or None
        Root mean square of how far the centroids are from those of the base, as in `Movement`;
        None where there is no base.
    """

    kind: str
    n_tensors: int
    n_matrices: int
    n_weights: int
    k_min: int
    k_max: int
    bits_per_weight: float
    relative_distortion: float | None
    n_protected: int
    farthest_deviations: float | None
    moved: float | None


def summarise_kinds(reports: Sequence[TensorReport]) -> list[KindSummary]:
    """Sum up tensors by kind, in the order in which the kinds come first.

    Parameters
    ----------
    reports : sequence of TensorReport
        As in `Inspection.clustered`.

    Returns
    -------
    list of KindSummary
    """
    kinds = kinds_of([report.record.name for report in reports])
    groups: dict[str, list[TensorReport]] = {}
    for report in reports:
        groups.setdefault(kinds[report.record.name], []).append(report)
    return [_summary(kind, group) for kind, group in groups.items()]


def kinds_of(names: Sequence[str]) -> dict[str, str]:
    """Return the kind of each tensor of a model, by its name.

    Parameters
    ----------
    names : sequence of str
        The names of all tensors in question. Where they are in more than one stack of layers, as
        in a model with an encoder and a decoder, the kind names the stack as well.

    Returns
    -------
    dict of str to str

    Examples
    --------
    >>> kinds_of(["head.weight", "model.layers.0.mlp.up.weight", "model.layers.1.mlp.up.weight"])
    ... # doctest: +NORMALIZE_WHITESPACE
    {'head.weight': 'head', 'model.layers.0.mlp.up.weight': 'mlp.up',
     'model.layers.1.mlp.up.weight': 'mlp.up'}
    """
    places = {name: LayerName.of(name) for name in names}
    several = len({place.stack for place in places.values() if place is not None}) > 1
    return {name: _kind(name, place, several) for name, place in places.items()}


def _kind(name: str, place: LayerName | None, several_stacks: bool) -> str:
    if place is None:
        return name.removesuffix(".weight")
    return f"{place.stack}.*.{place.type}" if several_stacks else place.type


def _summary(kind: str, reports: Sequence[TensorReport]) -> KindSummary:
    records = [report.record for report in reports]
    n_weights = sum(record.n_weights for record in records)
    farthest = [abs(weight.deviations) for report in reports for weight in report.protected]
    return KindSummary(
        kind=kind,
        n_tensors=len(records),
        n_matrices=sum(record.n_matrices for record in records),
        n_weights=n_weights,
        k_min=min(record.k for record in records),
        k_max=max(record.k for record in records),
        bits_per_weight=8 * sum(record.stored_bytes for record in records) / n_weights,
        relative_distortion=relative_distortion(records),
        n_protected=sum(record.n_protected for record in records),
        farthest_deviations=max(farthest, default=None),
        moved=_moved(reports),
    )


def _moved(reports: Sequence[TensorReport]) -> float | None:
    squares, n_centroids = 0.0, 0
    for report in reports:
        if report.movement is None:
            return None
        n = report.record.n_matrices * report.record.k
        squares += n * report.movement.root_mean_square**2
        n_centroids += n
    return math.sqrt(squares / n_centroids)
