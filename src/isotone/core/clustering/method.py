"""What a method of clustering is, and the register in which methods are found by name.

A method clusters the histogram of one matrix: it chooses a codebook, a rank for each bin, and the
bins whose weights are protected, that is, stored exactly. `kmeans` and `entropy` register
themselves. Another package adds a method with `register_method`, either after importing isotone or,
so that the command line and worker processes find it too, in a module that it names under the
entry-point group `isotone.methods`:

    [project.entry-points."isotone.methods"]
    median = "median_codebooks.method"
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from isotone.core.clustering.outliers import Protection
from isotone.core.clustering.solver import centroids
from isotone.core.histogram import Histogram
from isotone.core.rate import MatrixRate
from isotone.entry_points import METHODS, import_extensions
from isotone.errors import InputError


@dataclass(frozen=True)
class Assigned:
    """A clustered histogram.

    Attributes
    ----------
    histogram : Histogram
        What was clustered.
    codebook : float32 array, `[k]`
        The centroids, strictly ascending.
    ranks : uint8 array, `[n]`
        The rank of each bin.
    protected : bool array, `[n]`
        Whether the weights of each bin are stored exactly.
    """

    histogram: Histogram
    codebook: NDArray[np.float32]
    ranks: NDArray[np.uint8]
    protected: NDArray[np.bool_]

    @classmethod
    def whole(cls, histogram: Histogram) -> Self:
        """Return all weights as one cluster.

        Parameters
        ----------
        histogram : Histogram
            The weights.

        Returns
        -------
        Assigned
            With one centroid, their mean.
        """
        n = len(histogram)
        codebook = centroids(histogram, np.zeros(1, np.intp))
        return cls(histogram, codebook, np.zeros(n, np.uint8), np.zeros(n, np.bool_))

    def with_protected(self, histogram: Histogram, also: NDArray[np.bool_]) -> Assigned:
        """Return the same clusters with further bins, all of them protected.

        Parameters
        ----------
        histogram : Histogram
            All bins, the present ones among them.
        also : bool array, `[n]`
            Which of them are new. They get the rank at the nearer end of the codebook.

        Returns
        -------
        Assigned
            For all bins.
        """
        ranks = np.where(histogram.values < 0, 0, len(self.codebook) - 1).astype(np.uint8)
        protected = also.copy()
        ranks[~also], protected[~also] = self.ranks, self.protected
        return Assigned(histogram, self.codebook, ranks, protected)

    @property
    def counts(self) -> NDArray[np.int64]:
        """The number of weights at each rank, protected ones included, `[k]`."""
        counts = np.zeros(len(self.codebook), np.int64)
        np.add.at(counts, self.ranks, self.histogram.counts)
        return counts

    @property
    def n_protected(self) -> int:
        """The number of weights that are stored exactly."""
        return int(self.histogram.counts[self.protected].sum())


Split: TypeAlias = Callable[[Histogram, NDArray[np.float64]], Histogram]
"""Splits the bins in which some values fall into finer ones: see `isotone.core.counting.refine`."""


class Method(Protocol):
    """A way to cluster the histogram of a matrix.

    Methods are sent to worker processes, so they must pickle.
    """

    def assign(
        self,
        histogram: Histogram,
        rate: MatrixRate,
        unit: float | None = None,
        split: Split | None = None,
    ) -> Assigned:
        """Choose a codebook, a rank for each bin, and the protected bins.

        Parameters
        ----------
        histogram : Histogram
            The weights of the matrix, divided by its scales if it has any.
        rate : MatrixRate
            What centroids, ranks and protected weights cost on disk.
        unit : float, optional
            The squared error of one weight in whose units λ is given; None for the mean square of
            the histogram's bulk, if the matrix is not calibrated.
        split : callable, optional
            Splits bins into finer ones where that helps; None if there is nothing to split.

        Returns
        -------
        Assigned
            For `histogram`, or for what `split` made of it.
        """
        ...


@dataclass(frozen=True)
class MethodSettings:
    """What a user asked for, from which a factory makes a method.

    Attributes
    ----------
    k : int
        The number of centroids, 2 to 256; at most that many if the method chooses the number.
    protection : Protection
        The rule for protected weights.
    lambda_ : float, optional
        The Lagrange multiplier λ, see `EntropyMethod`; None if none was asked for.
    """

    k: int
    protection: Protection
    lambda_: float | None = None


MethodFactory: TypeAlias = Callable[[MethodSettings], Method]
"""Makes a method from the settings of a matrix."""

_FACTORIES: dict[str, MethodFactory] = {}


def register_method(name: str) -> Callable[[MethodFactory], MethodFactory]:
    """Register a factory of methods by name, as a decorator.

    Parameters
    ----------
    name : str
        The name by which the method is found. A later registration replaces an earlier one.

    Returns
    -------
    callable
        The decorator, which returns the factory unchanged.

    Examples
    --------
    >>> from isotone.core.clustering.kmeans import KMeansMethod
    >>> @register_method("four values")
    ... def four_values(settings):
    ...     return KMeansMethod(4, settings.protection)
    >>> method_named("four values")(MethodSettings(16, Protection.parse("off"))).k
    4
    """

    def register(factory: MethodFactory) -> MethodFactory:
        _FACTORIES[name] = factory
        return factory

    return register


def method_names() -> list[str]:
    """Return the names of all methods, those of other packages included, sorted."""
    import_extensions(METHODS)
    return sorted(_FACTORIES)


def method_named(name: str) -> MethodFactory:
    """Return the factory of a method.

    Parameters
    ----------
    name : str
        The name of a registered method. The modules that other packages name are imported if no
        method of that name is registered yet.

    Returns
    -------
    callable
        Makes the method from `MethodSettings`.

    Raises
    ------
    InputError
        If there is no method of that name, or if a module that another package names under
        `isotone.methods` cannot be imported.
    """
    if name not in _FACTORIES:
        import_extensions(METHODS)
    if name not in _FACTORIES:
        raise InputError(f"method is {name!r}; expected one of {', '.join(method_names())}")
    return _FACTORIES[name]
