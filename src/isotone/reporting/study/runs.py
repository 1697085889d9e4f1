"""A line of a study's results as what charts and claims ask of it: plain dicts in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

JsonRecord = Mapping[str, Any]


@dataclass(frozen=True)
class MeasuredRun:
    """One edited model and what was measured of it, see `isotone.study.StudyRecord`.

    Attributes
    ----------
    k : int
        The K of the clustering.
    protocol : str
        The protocol of the plan's grid.
    layers : tuple of int
        The edited layers, one or more.
    n_layers : int
        The number of layers of the model.
    types : tuple of str
        The types of the edited matrices.
    edit : str
        The name of the edit.
    parameters : tuple of (str, float)
        The parameters of the edit.
    at_error : float or None
        The relative error that the edit was scaled down to.
    correction : str
        The name of the correction.
    order : str or None
        The order of a progressive replacement.
    seed : int
        The seed.
    keeps : frozenset of str
        What the edit declares to keep.
    spearman : float or None
        The mean of Spearman's rho over the edited codebooks.
    relative_error : float
        The relative error of the edited weights.
    kl, top1_agreement : float or None
        The divergence and the agreement with the unedited model.
    perplexity : float
        The perplexity; infinite where no finite number came.
    unedited : float
        The perplexity of the same clustering before the edit.
    growth, cosine : tuple of float or None
        The growth and the cosine of the residual stream after each layer; None where not finite.
    """

    k: int
    protocol: str
    layers: tuple[int, ...]
    n_layers: int
    types: tuple[str, ...]
    edit: str
    parameters: tuple[tuple[str, float], ...]
    at_error: float | None
    correction: str
    order: str | None
    seed: int
    keeps: frozenset[str]
    spearman: float | None
    relative_error: float
    kl: float | None
    top1_agreement: float | None
    perplexity: float
    unedited: float
    growth: tuple[float | None, ...]
    cosine: tuple[float | None, ...]

    @property
    def perplexity_ratio(self) -> float:
        """Perplexity over the unedited one, "damage" on pages; infinite for a collapsed model."""
        return self.perplexity / self.unedited

    @property
    def layer(self) -> int:
        """The edited layer of a run of protocol "layer"."""
        return self.layers[0]

    @property
    def variant(self) -> str:
        """The edit with its parameters."""
        return ", ".join([self.edit, *(f"{name} {value:g}" for name, value in self.parameters)])


def study_runs(records: Sequence[JsonRecord]) -> list[MeasuredRun]:
    """Return the edited runs whose clustering was measured unedited too, in their order.

    Parameters
    ----------
    records : sequence of dict
        The lines of runs.jsonl.

    Returns
    -------
    list of MeasuredRun
        The runs.
    """
    unedited = {
        _clustering(record): _number(record["perplexity"])
        for record in records
        if record["kind"] == "unedited"
    }
    bases = [(record, unedited.get(_clustering(record))) for record in edited(records)]
    return [study_run(record, base) for record, base in bases if base]


def edited(records: Iterable[JsonRecord]) -> list[JsonRecord]:
    """Return the records of edited runs.

    Parameters
    ----------
    records : iterable of dict
        The lines of runs.jsonl.

    Returns
    -------
    list of dict
        Those of kind "edited".
    """
    return [record for record in records if record["kind"] == "edited"]


def study_run(record: JsonRecord, unedited: float) -> MeasuredRun:
    """Return the run of one record.

    Parameters
    ----------
    record : dict
        A line of runs.jsonl of kind "edited".
    unedited : float
        The perplexity of the same clustering before the edit.

    Returns
    -------
    MeasuredRun
        The run. A record of another kind raises KeyError, TypeError or ValueError.
    """
    run, drift = record["run"], record["drift"]
    perplexity, at_error = _number(record["perplexity"]), _number(run["at_error"])
    return MeasuredRun(
        k=int(record["k"]),
        protocol=str(run["protocol"]),
        layers=tuple(int(layer) for layer in run["layers"]) or _no_layers(),
        n_layers=len(drift["growth"]),
        types=tuple(str(name) for name in run["types"]),
        edit=str(run["edit"]),
        parameters=tuple((str(key), float(value)) for key, value in run["parameters"].items()),
        at_error=at_error,
        correction=str(run["correction"]),
        order=None if run["order"] is None else str(run["order"]),
        seed=int(run["seed"]),
        keeps=frozenset(record["keeps"]),
        spearman=_number(record["spearman"]),
        relative_error=float(record["relative_error"]),
        kl=_number(record["kl"]),
        top1_agreement=_number(record["top1_agreement"]),
        perplexity=math.inf if perplexity is None else perplexity,
        unedited=unedited,
        growth=tuple(_number(value) for value in drift["growth"]),
        cosine=tuple(_number(value) for value in drift["cosine"]),
    )


def single_layers(
    runs: Sequence[MeasuredRun], *, at_error: bool | None = False
) -> list[MeasuredRun]:
    """Return the runs of protocol "layer".

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs of a study.
    at_error : bool or None
        True for those that were scaled to an error, False for those as drawn, None for all.

    Returns
    -------
    list of MeasuredRun
        The runs.
    """
    return [
        run
        for run in runs
        if run.protocol == "layer" and at_error in (None, run.at_error is not None)
    ]


def by_k(runs: Sequence[MeasuredRun]) -> dict[int, list[MeasuredRun]]:
    """Group runs by K, the smallest first.

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs.

    Returns
    -------
    dict of int to list of MeasuredRun
        The runs by K.
    """
    return {k: [run for run in runs if run.k == k] for k in sorted({run.k for run in runs})}


def geometric_median(ratios: Iterable[float]) -> float:
    """Return the median of multiples; of two middle ones their geometric mean.

    Parameters
    ----------
    ratios : iterable of float
        Multiples, one or more; infinite ones count.

    Returns
    -------
    float
        The median.

    Examples
    --------
    >>> geometric_median([1.0, 100.0])
    10.0
    """
    ordered = sorted(ratios)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return low if low == high else math.sqrt(low) * math.sqrt(high)


def _clustering(record: JsonRecord) -> tuple[int, str]:
    return int(record["k"]), str(record["clustering_hash"])


def _number(value: object) -> float | None:
    """Return a finite number or None, which is what infinity and NaN become."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value) if math.isfinite(value) else None


def _no_layers() -> tuple[int, ...]:
    raise ValueError("an edited run without layers")
