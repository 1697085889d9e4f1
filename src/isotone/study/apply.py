"""Edits of codebooks as edits of clustered tensors, which is what `isotone.swapped` takes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from isotone.core.clustered_tensor import ClusteredTensor
from isotone.study.edits import Edit


def on_tensors(edit: Edit, seed: int) -> Callable[[ClusteredTensor], NDArray[np.float32]]:
    """A function from a tensor to its edited codebook, [k] or [matrices, k] float32.

    Every tensor begins with the same generator, so what is drawn does not depend on which tensors
    are edited, or in which order; the matrices of a stack follow one another. Cost: one pass over
    the ranks, for the counts.
    """

    def edited(tensor: ClusteredTensor) -> NDArray[np.float32]:
        rng = np.random.default_rng(seed)
        codebooks = tensor.codebook.reshape(tensor.n_matrices, -1).astype(np.float64)
        counts = tensor.counts.reshape(tensor.n_matrices, -1)
        rows = [edit(*pair, rng) for pair in zip(codebooks, counts, strict=True)]
        return np.stack(rows).astype(np.float32).reshape(tensor.codebook.shape)

    return edited
