"""What a method of clustering comes to, on the distinct values of a matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from isotone.core.clustering.kmeans import centroids
from isotone.core.histogram import Histogram


@dataclass(frozen=True)
class Assigned:
    """Clustered points.

    points: what was clustered. codebook: [k] float32, strictly ascending.
    ranks: [n] uint8, of each point. protected: [n] bool, the points that are stored exactly.
    """

    points: Histogram
    codebook: NDArray[np.float32]
    ranks: NDArray[np.uint8]
    protected: NDArray[np.bool_]

    @classmethod
    def whole(cls, points: Histogram) -> Self:
        """All points as one cluster."""
        n = len(points)
        codebook = centroids(points, np.zeros(1, np.intp))
        return cls(points, codebook, np.zeros(n, np.uint8), np.zeros(n, np.bool_))

    def with_protected(self, points: Histogram, also: NDArray[np.bool_]) -> Assigned:
        """The same with more points, all of them protected, with the rank of the nearest end.

        points: all of them. also: [n] bool, which of them are not in the present ones.
        """
        ranks = np.where(points.values < 0, 0, len(self.codebook) - 1).astype(np.uint8)
        protected = also.copy()
        ranks[~also], protected[~also] = self.ranks, self.protected
        return Assigned(points, self.codebook, ranks, protected)

    @property
    def counts(self) -> NDArray[np.int64]:
        """[k]: the weights of each rank, protected ones included."""
        counts = np.zeros(len(self.codebook), np.int64)
        np.add.at(counts, self.ranks, self.points.counts)
        return counts

    @property
    def n_protected(self) -> int:
        """How many weights are stored exactly."""
        return int(self.points.counts[self.protected].sum())


Split = Callable[[Histogram, NDArray[np.float64]], Histogram]
"""Splits the points that hold some values into finer ones: see `points.refine`."""


class Method(Protocol):
    """A way to cluster the points of a matrix."""

    def assign(self, points: Histogram, value_bits: int, n_chunks: int, split: Split) -> Assigned:
        """Choose codebook and protected points.

        value_bits: what the value of a protected weight takes on disk. n_chunks: in how many the
        ranks will be coded. split: makes finer points where that would help; may be called.
        """
        ...
