"""The central object: a tensor as ranks, and the values that the ranks stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isotone.core.float_format import Bits, FloatFormat
from isotone.core.scales.codes import Scale
from isotone.core.values import Values


@dataclass(frozen=True)
class ClusteredTensor:
    """A clustered tensor: its ranks (the order of its weights) and its values, kept apart.

    Attributes
    ----------
    values : Values
        Codebook, scales and protected weights.
    ranks : uint8 array, of the tensor's shape
        For each weight the rank of its centroid in the codebook; 0 is the smallest.

    Examples
    --------
    >>> values = Values((2, 2), FloatFormat.F32, codebook=np.float32([-1, 1, 3]))
    >>> tensor = ClusteredTensor(values, np.uint8([[0, 2], [1, 1]]))
    >>> tensor.dense()
    array([[-1.,  3.],
           [ 1.,  1.]], dtype=float32)
    >>> tensor.counts
    array([1, 2, 1])
    """

    values: Values
    ranks: NDArray[np.uint8]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor."""
        return self.values.shape

    @property
    def float_format(self) -> FloatFormat:
        """The format of the tensor's weights."""
        return self.values.float_format

    @property
    def codebook(self) -> NDArray[np.float32]:
        """The centroids, `[k]` or `[matrices, k]` float32."""
        return self.values.codebook

    @property
    def row_scale(self) -> Scale | None:
        """The scales of the rows as they are stored, or None."""
        return self.values.row_scale

    @property
    def column_scale(self) -> Scale | None:
        """The scales of the columns as they are stored, or None."""
        return self.values.column_scale

    @property
    def protected_index(self) -> NDArray[np.int64]:
        """Ascending positions of the protected weights in the flattened tensor, `[n]` int64."""
        return self.values.protected_index

    @property
    def protected_value(self) -> Bits:
        """The protected weights as bit patterns of `float_format`, `[n]`."""
        return self.values.protected_value

    @property
    def assignments(self) -> NDArray[np.uint8]:
        """The former name of `ranks`, kept for this release."""
        return self.ranks

    @property
    def k(self) -> int:
        """The number of centroids in each codebook."""
        return self.values.k

    @property
    def n_matrices(self) -> int:
        """The number of matrices in a stack; 1 for a tensor that is not a stack."""
        return self.values.n_matrices

    @property
    def n_weights(self) -> int:
        """The number of weights in the tensor."""
        return self.values.n_weights

    @property
    def counts(self) -> NDArray[np.int64]:
        """The number of weights at each centroid, `[k]` or `[matrices, k]`; costs one pass."""
        rows = self.ranks.reshape(self.n_matrices, -1)
        counts = [np.bincount(row, minlength=self.k) for row in rows]
        return np.array(counts, np.int64).reshape(self.codebook.shape)

    def with_codebook(self, codebook: NDArray[np.float32]) -> ClusteredTensor:
        """Return a tensor that shares these ranks and has another codebook.

        Parameters
        ----------
        codebook : float32 array
            Finite, of the shape of the present codebook. Its order is free, so that studies can
            break it.

        Returns
        -------
        ClusteredTensor
            Everything but the codebook is shared.

        Raises
        ------
        InputError
            If the codebook has another shape or dtype, or is not finite.
        """
        return ClusteredTensor(self.values.with_codebook(codebook), self.ranks)

    def dense_bits(self) -> Bits:
        """Return the decoded weights as bit patterns of `float_format`, `[n_weights]`."""
        out = np.empty(self.n_weights, self.float_format.bits_dtype)
        rows = zip(
            self.ranks.reshape(self.n_matrices, -1), out.reshape(self.n_matrices, -1), strict=True
        )
        for matrix, (ranks, weights) in enumerate(rows):
            self.values.decode(ranks, weights, matrix=matrix)
        return out

    def dense(self) -> NDArray[np.float32]:
        """Return the decoded weights in `shape`, upcast to float32 (exact)."""
        return self.float_format.upcast(self.dense_bits()).reshape(self.shape)
