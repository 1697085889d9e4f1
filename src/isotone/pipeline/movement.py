"""How far the centroids of a tensor have moved from those of its base."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Movement:
    """The codebooks of a tensor before and after a change of its values.

    Distances are measured in mean spacings of the codebook before:
    `(largest - smallest) / (k - 1)`. For a single centroid the unit is its magnitude, or 1 if it is
    zero.

    Attributes
    ----------
    before, after : float32 array, `[k]` or `[matrices, k]`
        The codebooks.
    """

    before: NDArray[np.float32]
    after: NDArray[np.float32]

    @cached_property
    def spacings(self) -> NDArray[np.float64]:
        """How far each centroid has moved, in mean spacings: `[matrices, k]` float64."""
        k = self.before.shape[-1]
        before, after = (
            each.reshape(-1, k).astype(np.float64) for each in (self.before, self.after)
        )
        spacing = np.abs(before[:, :1]) if k == 1 else (before[:, -1:] - before[:, :1]) / (k - 1)
        return (after - before) / np.where(spacing == 0, 1.0, spacing)

    @property
    def root_mean_square(self) -> float:
        """The root mean square over all centroids, in mean spacings."""
        return float(np.sqrt(np.square(self.spacings).mean()))

    @property
    def farthest(self) -> float:
        """The largest distance of any centroid, in mean spacings."""
        return float(np.abs(self.spacings).max())
