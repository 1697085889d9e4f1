"""How far the centroids of a tensor are from where they were."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Movement:
    """Codebooks before and after: float32 [k], or [matrices, k] both."""

    before: NDArray[np.float32]
    after: NDArray[np.float32]

    @cached_property
    def gaps(self) -> NDArray[np.float64]:
        """[matrices, k]: by how many mean gaps of its codebook before each centroid has moved.

        The mean gap is (largest - smallest) / (k - 1); of a single centroid, its magnitude (1 for
        zero).
        """
        k = self.before.shape[-1]
        before, after = (
            each.reshape(-1, k).astype(np.float64) for each in (self.before, self.after)
        )
        gap = np.abs(before[:, :1]) if k == 1 else (before[:, -1:] - before[:, :1]) / (k - 1)
        return (after - before) / np.where(gap == 0, 1.0, gap)

    @property
    def root_mean_square(self) -> float:
        """Over all centroids, in gaps."""
        return float(np.sqrt(np.square(self.gaps).mean()))

    @property
    def farthest(self) -> float:
        """The longest way, in gaps."""
        return float(np.abs(self.gaps).max())
