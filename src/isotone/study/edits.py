"""Changes of a codebook, those that keep the order of its centroids and those that break it.

An edit is a pure function `(codebook, counts, rng) -> codebook`: [k] float64, ascending, the number
of weights of each rank [k], and a generator, to the new values by rank, [k] float64. What every
edit of a kind keeps is declared beside it, and tests hold it:

    order: the new codebook ascends.
    signs: no centroid changes its sign.
    values: the same values, at other ranks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, get_type_hints

import numpy as np
from numpy.typing import NDArray

from isotone.errors import InputError
from isotone.study.comparison import spearman

Codebook: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.int64]
Edit: TypeAlias = Callable[[Codebook, Counts, np.random.Generator], Codebook]


@dataclass(frozen=True)
class EditKind:
    """A family of edits.

    keeps: some of order, signs, values, for whatever parameters. drawn: whether anything is.
    """

    name: str
    function: Callable[..., Codebook]
    keeps: frozenset[str]
    drawn: bool

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of what can be set."""
        return tuple(inspect.signature(self.function).parameters)[3:]

    @property
    def needs_other(self) -> bool:
        """Whether it takes another matrix, as `other` and `other_counts`."""
        return "other" in self.parameters

    @property
    def plan_parameters(self) -> dict[str, type]:
        """What a plan can set, int or float: those parameters, or the layer of the other matrix."""
        if self.needs_other:
            return {"layer": int}
        hints = get_type_hints(self.function)
        return {name: hints[name] for name in self.parameters}

    def with_parameters(self, **parameters: Any) -> Edit:  # noqa: ANN401 (each has its own)
        """One edit of the family; raises InputError for a parameter that it does not have."""
        unknown = sorted(parameters.keys() - set(self.parameters))
        if unknown:
            known = ", ".join(self.parameters) or "none"
            raise InputError(f"edit {self.name} has no parameter {unknown[0]!r}; it has {known}")
        return partial(self.function, **parameters)


EDITS: dict[str, EditKind] = {}
"""Every kind by name."""


def _keeping(
    *kept: str, drawn: bool = True
) -> Callable[[Callable[..., Codebook]], Callable[..., Codebook]]:
    """Enter a function into EDITS."""

    def enter(function: Callable[..., Codebook]) -> Callable[..., Codebook]:
        name = function.__name__
        EDITS[name] = EditKind(name, function, frozenset(kept), drawn)
        return function

    return enter


# Order kept: what the values are is changed, in ways that know less and less of what they were.


@_keeping("order")
def sorted_normal(codebook: Codebook, counts: Counts, rng: np.random.Generator) -> Codebook:
    """Standard normal draws in order."""
    return np.sort(rng.standard_normal(len(codebook)))


@_keeping("order")
def sorted_uniform(codebook: Codebook, counts: Counts, rng: np.random.Generator) -> Codebook:
    """Draws from -1 to 1 in order."""
    return np.sort(rng.uniform(-1.0, 1.0, len(codebook)))


@_keeping("order")
def sorted_empirical(codebook: Codebook, counts: Counts, rng: np.random.Generator) -> Codebook:
    """Draws in order from the weights' own distribution, straight between centroids."""
    return _quantiles(codebook, counts, np.sort(rng.uniform(size=len(codebook))))


@_keeping("order", drawn=False)
def even_spacing(codebook: Codebook, counts: Counts, rng: np.random.Generator) -> Codebook:
    """The same range, in equal steps."""
    return np.linspace(codebook[0], codebook[-1], len(codebook))


@_keeping("order")
def jittered_gaps(
    codebook: Codebook, counts: Counts, rng: np.random.Generator, *, strength: float = 0.5
) -> Codebook:
    """Each gap times exp(strength * a standard normal draw), from the lowest centroid upwards."""
    factors = np.exp(strength * rng.standard_normal(len(codebook) - 1))
    edited = codebook.copy()
    edited[1:] = codebook[0] + np.cumsum(np.diff(codebook) * factors)
    return edited


@_keeping("order", "signs", drawn=False)
def power_warp(
    codebook: Codebook, counts: Counts, rng: np.random.Generator, *, exponent: float = 2.0
) -> Codebook:
    """sign(c) * |c| ** exponent, the largest magnitude staying; exponent > 0."""
    if not exponent > 0:
        raise InputError(f"exponent is {exponent}; expected more than 0")
    largest = np.abs(codebook).max() or 1.0
    return np.sign(codebook) * largest * np.abs(codebook / largest) ** exponent


@_keeping("order", "signs", drawn=False)
def tanh_warp(
    codebook: Codebook, counts: Counts, rng: np.random.Generator, *, strength: float = 1.0
) -> Codebook:
    """tanh(strength * c / the largest magnitude), which pushes the outer ones together."""
    if not 0 < strength <= 8:
        raise InputError(f"strength is {strength}; expected more than 0, and at most 8")
    largest = np.abs(codebook).max() or 1.0
    return largest * np.tanh(strength * codebook / largest)


@_keeping("order", drawn=False)
def quantile_match(
    codebook: Codebook,
    counts: Counts,
    rng: np.random.Generator,
    *,
    other: Codebook,
    other_counts: Counts,
) -> Codebook:
    """What another matrix has at the quantiles of each centroid."""
    return _quantiles(other, other_counts, _middles(counts))


# Order broken: the same values, for other ranks.


@_keeping("values")
def permute(codebook: Codebook, counts: Counts, rng: np.random.Generator) -> Codebook:
    """Any order."""
    return rng.permutation(codebook)


@_keeping("values")
def permute_window(
    codebook: Codebook, counts: Counts, rng: np.random.Generator, *, width: int = 4
) -> Codebook:
    """Any order within each run of `width` ranks; the first run may be shorter, by chance."""
    if width < 1:
        raise InputError(f"width is {width}; expected 1 or more")
    borders = np.arange(rng.integers(width), len(codebook), width)
    return np.concatenate([rng.permutation(part) for part in np.split(codebook, borders)])


@_keeping("values")
def swap_neighbours(
    codebook: Codebook, counts: Counts, rng: np.random.Generator, *, share: float = 1.0
) -> Codebook:
    """Pairs of adjacent ranks change places: a share of as many as there can be at once."""
    edited, first = codebook.copy(), int(rng.integers(2)) if len(codebook) > 2 else 0
    pairs = np.arange(first, len(codebook) - 1, 2)
    for at in rng.choice(pairs, round(share * len(pairs)), replace=False):
        edited[[at, at + 1]] = edited[[at + 1, at]]
    return edited


@_keeping("values")
def transpose(
    codebook: Codebook, counts: Counts, rng: np.random.Generator, *, n: int = 1
) -> Codebook:
    """Two ranks, drawn at random, change places, n times."""
    edited = codebook.copy()
    for _ in range(n if len(codebook) > 1 else 0):
        pair = rng.choice(len(codebook), 2, replace=False)
        edited[pair] = edited[pair[::-1]]
    return edited


@_keeping("values")
def to_spearman(
    codebook: Codebook, counts: Counts, rng: np.random.Generator, *, rho: float = 0.0
) -> Codebook:
    """Ranks change places until Spearman's rho is about what is asked: 1 is as it was, -1 reversed.

    Below 0 it begins with the reversed order. Each transposition brings rho nearer.
    """
    if not -1 <= rho <= 1:
        raise InputError(f"rho is {rho}; expected -1 to 1")
    edited = codebook.copy() if rho >= 0 else codebook[::-1].copy()
    found = spearman(codebook, edited)
    for _ in range(64 * len(codebook)):
        pair = rng.integers(len(codebook), size=2)
        candidate = edited.copy()
        candidate[pair] = edited[pair[::-1]]
        reached = spearman(codebook, candidate)
        if abs(reached - rho) < abs(found - rho):
            edited, found = candidate, reached
    return edited


@_keeping("values", drawn=False)
def reverse(codebook: Codebook, counts: Counts, rng: np.random.Generator) -> Codebook:
    """The highest for the lowest."""
    return codebook[::-1].copy()


# Controls: what may hurt besides a lost order.


@_keeping("values", "signs")
def permute_within_sign(codebook: Codebook, counts: Counts, rng: np.random.Generator) -> Codebook:
    """Any order among the negative centroids, and among the positive: magnitudes scrambled."""
    edited = codebook.copy()
    for side in (codebook < 0, codebook > 0):
        edited[side] = rng.permutation(codebook[side])
    return edited


@_keeping()
def flip_signs(
    codebook: Codebook, counts: Counts, rng: np.random.Generator, *, share: float = 0.5
) -> Codebook:
    """A share of the centroids changes its sign, and keeps its magnitude."""
    flipped = rng.choice(len(codebook), round(share * len(codebook)), replace=False)
    signs = np.ones(len(codebook))
    signs[flipped] = -1.0
    return codebook * signs


@_keeping()
def gaussian_noise(
    codebook: Codebook, counts: Counts, rng: np.random.Generator, *, strength: float = 0.1
) -> Codebook:
    """A normal draw for each centroid, in standard deviations of the weights."""
    share = counts / counts.sum()
    deviation = np.sqrt((share * (codebook - (share * codebook).sum()) ** 2).sum())
    edited = codebook.copy()
    edited += strength * deviation * rng.standard_normal(len(codebook))
    return edited


def _middles(counts: Counts) -> NDArray[np.float64]:
    """Where each rank's weights have their middle, as a quantile of all."""
    middles: NDArray[np.float64] = (np.cumsum(counts) - 0.5 * counts) / counts.sum()
    return middles


def _quantiles(
    codebook: Codebook, counts: Counts, quantiles: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The weights' distribution at quantiles, straight between the centroids and past the last.

    Past the outermost it goes on as steep as between the two there, so that nothing falls together.
    """
    places = _middles(counts)
    if len(codebook) == 1:
        return np.full(len(quantiles), codebook[0])
    inside = np.interp(quantiles, places, codebook)
    for end, inner in ((0, 1), (-1, -2)):
        slope = (codebook[end] - codebook[inner]) / (places[end] - places[inner])
        beyond = quantiles < places[0] if end == 0 else quantiles > places[-1]
        inside[beyond] = codebook[end] + slope * (quantiles[beyond] - places[end])
    return inside
