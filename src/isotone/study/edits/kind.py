"""What an edit of a codebook is, and how a module enters its edits under their names.

An edit is a pure function `(codebook, counts, rng) -> edited`, from the ascending centroids of a
matrix to the new values of the same ranks. What every edit of a kind keeps is declared beside it,
and tests hold it to that:

- *order*: the edited codebook ascends.
- *signs*: no centroid changes its sign.
- *values*: the same values, at other ranks.
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

Codebook: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.int64]
Edit: TypeAlias = Callable[[Codebook, Counts, np.random.Generator], Codebook]


@dataclass(frozen=True)
class EditKind:
    """A family of edits that differ in their parameters.

    Attributes
    ----------
    name : str
        The name by which plans call the edit.
    function : callable
        The edit, `(codebook, counts, rng, **parameters) -> edited`.
    keeps : frozenset of str
        What every edit of the family keeps: some of "order", "signs" and "values".
    drawn : bool
        Whether the edit draws anything, so that different seeds give different results.
    """

    name: str
    function: Callable[..., Codebook]
    keeps: frozenset[str]
    drawn: bool

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters that can be set."""
        return tuple(inspect.signature(self.function).parameters)[3:]

    @property
    def needs_other(self) -> bool:
        """Whether the edit takes another matrix, as `other` and `other_counts`."""
        return "other" in self.parameters

    @property
    def plan_parameters(self) -> dict[str, type]:
        """The parameters that a plan can set, each with its type, int or float.

        An edit that takes another matrix has the parameter `layer`: that of the other matrix.
        """
        if self.needs_other:
            return {"layer": int}
        hints = get_type_hints(self.function)
        return {name: hints[name] for name in self.parameters}

    def with_parameters(self, **parameters: Any) -> Edit:  # noqa: ANN401 (each has its own)
        """Return the edit of this family with the given parameters.

        Parameters
        ----------
        **parameters
            Values for some of `parameters`; the others keep their defaults.

        Returns
        -------
        callable
            The edit, `(codebook, counts, rng) -> edited`.

        Raises
        ------
        InputError
            If the family has no parameter of a given name.
        """
        unknown = sorted(parameters.keys() - set(self.parameters))
        if unknown:
            known = ", ".join(self.parameters) or "none"
            raise InputError(f"edit {self.name} has no parameter {unknown[0]!r}; it has {known}")
        return partial(self.function, **parameters)


def entering(
    kinds: dict[str, EditKind], *kept: str, drawn: bool = True
) -> Callable[[Callable[..., Codebook]], Callable[..., Codebook]]:
    """Return a decorator that enters an edit under its function's name.

    Parameters
    ----------
    kinds : dict of str to EditKind
        Where the edit is entered.
    *kept : str
        What the edit keeps, whatever its parameters: some of "order", "signs" and "values".
    drawn : bool
        Whether the edit draws anything.

    Returns
    -------
    callable
        A decorator that gives its function back unchanged.
    """

    def enter(function: Callable[..., Codebook]) -> Callable[..., Codebook]:
        name = function.__name__
        kinds[name] = EditKind(name, function, frozenset(kept), drawn)
        return function

    return enter
