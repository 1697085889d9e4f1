"""The order of a codebook: where it is lost, and the nearest one that has it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def n_crossed(codebook: NDArray[np.float32]) -> int:
    """Neighbours [..., k] that are not in ascending order."""
    return int((np.diff(codebook, axis=-1) <= 0).sum())


def strictly_ascending(codebook: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest ascending codebook, and then no two centroids the same: [..., k].

    Centroids that crossed meet at their mean (isotonic regression, by pooling adjacent violators;
    Barlow et al., 1972), and equal ones are parted by float32's smallest step.
    """
    flat = codebook.reshape(-1, codebook.shape[-1])
    return np.stack([_parted(_pooled(row)) for row in flat]).reshape(codebook.shape)


def _pooled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    pools: list[tuple[float, int]] = []
    for value in values.tolist():
        mean, size = value, 1
        while pools and pools[-1][0] > mean:
            before, length = pools.pop()
            mean, size = (before * length + mean * size) / (length + size), size + length
        pools.append((mean, size))
    return np.repeat([mean for mean, _ in pools], [n for _, n in pools]).astype(np.float32)


def _parted(values: NDArray[np.float32]) -> NDArray[np.float32]:
    parted = values.copy()
    for at in range(1, len(parted)):
        if parted[at] <= parted[at - 1]:
            parted[at] = np.nextafter(parted[at - 1], np.float32(np.inf))
    return parted
