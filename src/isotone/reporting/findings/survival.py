"""Survival: how many layers can be replaced until a model's perplexity doubles."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from isotone.reporting.study.runs import MeasuredRun

DOUBLED = 2.0
"""The perplexity ratio at which a replacement has not survived."""

ORDERS = {"first": "from the first layer", "last": "from the last layer", "random": "random order"}


@dataclass(frozen=True)
class Replacement:
    """One progressive replacement.

    Attributes
    ----------
    runs : tuple of MeasuredRun
        Its runs, by the ascending number of replaced layers.
    """

    runs: tuple[MeasuredRun, ...]

    @property
    def k(self) -> int:
        """The K of the clustering."""
        return self.runs[0].k

    @property
    def order(self) -> str:
        """The order of the layers: "first", "last" or "random"."""
        return self.runs[0].order or ""

    def ratio_at(self, n_layers: int) -> float | None:
        """Return the perplexity ratio at a number of replaced layers.

        Parameters
        ----------
        n_layers : int
            The number of replaced layers.

        Returns
        -------
        float or None
            Perplexity over unedited perplexity; None where that was not measured.
        """
        return next(
            (run.perplexity_ratio for run in self.runs if len(run.layers) == n_layers), None
        )

    @property
    def doubled(self) -> MeasuredRun | None:
        """The first run of at least twice the unedited perplexity; None where there is none."""
        return next((run for run in self.runs if run.perplexity_ratio >= DOUBLED), None)

    @property
    def survival(self) -> float:
        """The first number of layers that was measured doubled; infinite where none was."""
        return math.inf if self.doubled is None else len(self.doubled.layers)


@dataclass(frozen=True)
class Survival:
    """Replacements that differ in their seeds alone.

    Attributes
    ----------
    k : int
        The K of the clustering.
    order : str
        The order of the layers: "first", "last" or "random".
    variant : str
        The edit with its parameters.
    correction : str
        The correction.
    survivals : tuple of float
        The survival of each seed, ascending.
    most : int
        The number of layers replaced by every sequence that has not doubled; 0 where all have.
    growth : float or None
        The growth of the residual stream's RMS after the last layer at the run that doubled, the
        median over seeds: infinite where not finite, None where nothing doubled.
    """

    k: int
    order: str
    variant: str
    correction: str
    survivals: tuple[float, ...]
    most: int
    growth: float | None

    @property
    def median(self) -> float:
        """The median of the survivals."""
        return statistics.median(self.survivals)

    def layers_text(self, n_layers: float) -> str:
        """Return a survival as text; one that was not reached is more than what was measured.

        Parameters
        ----------
        n_layers : float
            The survival, a number of layers or infinity.

        Returns
        -------
        str
            The number, or "> N".
        """
        return f"> {self.most}" if n_layers == math.inf else f"{n_layers:g}"


def growth_text(growth: float | None) -> str:
    """Return the growth of the residual stream as text.

    Parameters
    ----------
    growth : float or None
        The growth; None where nothing doubled.

    Returns
    -------
    str
        The growth as a multiple.
    """
    if growth is None:
        return "–"
    return "not finite" if growth == math.inf else f"× {growth:.3g}"


def replacements(runs: Sequence[MeasuredRun]) -> list[Replacement]:
    """Return the progressive replacements that runs belong to.

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs of a study.

    Returns
    -------
    list of Replacement
        The replacements, in the order of their first runs.
    """
    grouped: dict[tuple[object, ...], dict[int, MeasuredRun]] = {}
    for run in runs:
        if run.protocol == "progressive":
            key = (run.k, run.order, run.variant, run.types, run.correction, run.seed)
            grouped.setdefault(key, {})[len(run.layers)] = run
    return [
        Replacement(tuple(by_number[n] for n in sorted(by_number)))
        for by_number in grouped.values()
    ]


def survivals(runs: Sequence[MeasuredRun]) -> list[Survival]:
    """Return the survival for every K, order, edit and correction.

    Parameters
    ----------
    runs : sequence of MeasuredRun
        The runs of a study.

    Returns
    -------
    list of Survival
        The survivals, by K and then by order.
    """
    grouped: dict[tuple[int, str, str, str], list[Replacement]] = {}
    for found in replacements(runs):
        run = found.runs[0]
        key = found.k, found.order, run.variant, run.correction
        grouped.setdefault(key, []).append(found)
    return [_survival(key, grouped[key]) for key in sorted(grouped, key=_rank)]


def _rank(key: tuple[int, str, str, str]) -> tuple[object, ...]:
    k, order, variant, correction = key
    orders = list(ORDERS)
    at = orders.index(order) if order in orders else len(orders)
    return k, at, order, variant, correction != "none", correction


def _survival(key: tuple[int, str, str, str], found: Sequence[Replacement]) -> Survival:
    doubled = [each.doubled.growth[-1] for each in found if each.doubled and each.doubled.growth]
    unbroken = [len(each.runs[-1].layers) for each in found if not each.doubled]
    growths = [math.inf if growth is None else growth for growth in doubled]
    return Survival(
        *key,
        survivals=tuple(sorted(each.survival for each in found)),
        most=min(unbroken, default=0),
        growth=statistics.median(growths) if growths else None,
    )
