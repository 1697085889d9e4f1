"""A line of a study's results as what charts and claims ask of it: plain dicts in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]


@dataclass(frozen=True)
class StudyRun:
    """One edited model, measured; study.record tells what each figure is.

    n_layers: of the model. perplexity: infinite where no finite number came. unedited: the
    perplexity of the same clustering before the edit. growth, cosine: of the residual stream after
    each layer, None where not finite.
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
    def damage(self) -> float:
        """Perplexity as a multiple of the unedited one; infinite where the model collapsed."""
        return self.perplexity / self.unedited

    @property
    def layer(self) -> int:
        """The one that was edited, of protocol layer."""
        return self.layers[0]

    @property
    def variant(self) -> str:
        """The edit with its parameters."""
        return ", ".join([self.edit, *(f"{name} {value:g}" for name, value in self.parameters)])


def study_runs(records: Sequence[Record]) -> list[StudyRun]:
    """The edited runs whose clustering was measured unedited too, in their order."""
    unedited = {
        _clustering(record): _number(record["perplexity"])
        for record in records
        if record["kind"] == "unedited"
    }
    bases = [(record, unedited.get(_clustering(record))) for record in edited(records)]
    return [study_run(record, base) for record, base in bases if base]


def edited(records: Iterable[Record]) -> list[Record]:
    """Those of kind edited."""
    return [record for record in records if record["kind"] == "edited"]


def study_run(record: Record, unedited: float) -> StudyRun:
    """One record; raises KeyError, TypeError or ValueError where it is no edited run."""
    run, drift = record["run"], record["drift"]
    perplexity, at_error = _number(record["perplexity"]), _number(run["at_error"])
    return StudyRun(
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


def single_layers(runs: Sequence[StudyRun], *, at_error: bool | None = False) -> list[StudyRun]:
    """Runs of protocol layer; at_error: those scaled to an error, those as drawn, or (None) all."""
    return [
        run
        for run in runs
        if run.protocol == "layer" and at_error in (None, run.at_error is not None)
    ]


def by_size(runs: Sequence[StudyRun]) -> dict[int, list[StudyRun]]:
    """Runs by K, the smallest first."""
    return {k: [run for run in runs if run.k == k] for k in sorted({run.k for run in runs})}


def middle(damages: Iterable[float]) -> float:
    """The median of multiples, of two middle ones their geometric mean; infinite ones count."""
    ordered = sorted(damages)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return low if low == high else math.sqrt(low) * math.sqrt(high)


def _clustering(record: Record) -> tuple[int, str]:
    return int(record["k"]), str(record["clustering_hash"])


def _number(value: object) -> float | None:
    """A finite number or None; infinity and nan are what null stands for."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value) if math.isfinite(value) else None


def _no_layers() -> tuple[int, ...]:
    raise ValueError("an edited run without layers")
