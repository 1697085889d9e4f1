"""The rate model: every bit that a clustered matrix costs on disk, decided once.

Whoever needs to know what a matrix costs asks here: clustering, which weighs bits against squared
error; the choice of scales and of protected weights; the planner; and the search for the Lagrange
multiplier λ that takes a model to an asked size. The codec takes the constants of the format from
here, and the constants of the coder come from the native module that codes.
`tests/core/test_rate.py` holds the model, the native module and the bytes that are really written
together.

A clustered matrix costs

- its share of the packed header, and the coder's states in each chunk of ranks (`overhead_bits`);
- its ranks, by how often each occurs (`coded_rank_bits`);
- its codebook, and for each centroid a frequency in each chunk;
- a position and a value for each protected weight;
- a code for each scale.

Constants
---------
CENTROID_BITS
    Bits of a centroid in the codebook.
SYMBOL_BITS
    Bits of a centroid's frequency, in each coded chunk of ranks.
FREQUENCY_SLOTS
    The sum of the frequencies of a chunk: a rank costs at most log2 of it, 12 bits.
RANS_STATE_BYTES
    Bytes of the coder's final states, in each coded chunk.
CODER_OVERHEAD_BITS
    Bits per weight by which the coder exceeds the entropy, measured: frequencies are rounded to
    `FREQUENCY_SLOTS`.
POSITION_DELTA_BITS
    Bits of the position of a protected weight, stored as the delta to the one before it. Deltas
    of 65,535 and more need further entries, which are too rare to count.
PROTECTED_RANK_BITS
    Bits of the rank that a protected weight still has, a guess: its rank is rare.
SCALE_CODE_BITS
    Bits of the scale of a row or a column.
HEADER_BYTES, AXIS_BYTES, CHUNK_ENTRY_BYTES
    The packed header: its fixed part, the length of each axis, and the entry of each chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isotone import _native

CENTROID_BITS = 32
SYMBOL_BITS = 8 * _native.RANS_SYMBOL_BYTES
FREQUENCY_SLOTS = _native.RANS_SLOTS
RANS_STATE_BYTES = _native.RANS_STATE_BYTES
CODER_OVERHEAD_BITS = 0.004
POSITION_DELTA_BITS = 16
PROTECTED_RANK_BITS = 8.0
SCALE_CODE_BITS = 8
HEADER_BYTES, AXIS_BYTES, CHUNK_ENTRY_BYTES = 20, 8, 4


@dataclass(frozen=True)
class MatrixRate:
    """What the parts of one clustered matrix cost.

    Attributes
    ----------
    value_bits : int
        Bits of one weight as the source stores it, hence of a protected weight's value.
    n_chunks : int
        The number of chunks in which the ranks will be coded.

    Examples
    --------
    >>> rate = MatrixRate(value_bits=16, n_chunks=2)
    >>> rate.centroid_bits, rate.protected_bits
    (64, 32)
    >>> rate.clustered_bits(np.array([512, 512]), n_protected=1)  # 1,024 ranks of one bit
    1184.0
    """

    value_bits: int
    n_chunks: int

    @property
    def centroid_bits(self) -> int:
        """Bits of one more centroid: in the codebook, and in the head of each chunk."""
        return CENTROID_BITS + self.n_chunks * SYMBOL_BITS

    @property
    def protected_bits(self) -> int:
        """Bits of one protected weight beside its rank: its position and its value."""
        return POSITION_DELTA_BITS + self.value_bits

    def clustered_bits(self, counts: NDArray[np.int64], n_protected: int) -> float:
        """Return the bits of the ranks, the codebook and the protected weights.

        Parameters
        ----------
        counts : int64 array, `[k]`
            The number of weights at each rank, protected ones included.
        n_protected : int
            The number of protected weights.

        Returns
        -------
        float
            Bits; without scales, and without what `overhead_bits` counts.
        """
        return (
            coded_rank_bits(counts)
            + len(counts) * self.centroid_bits
            + n_protected * self.protected_bits
        )


def overhead_bits(
    header_bytes: int, n_matrices: int, n_chunks: int, n_weights: int, scale_bits: int
) -> float:
    """Return the bits of one matrix that do not depend on its clusters.

    Parameters
    ----------
    header_bytes : int
        The length of the tensor's packed header, see `packed_header_bytes`.
    n_matrices : int
        The number of matrices that share the header.
    n_chunks : int
        The number of chunks in which the ranks of the matrix are coded.
    n_weights : int
        The number of weights in the matrix.
    scale_bits : int
        Bits of the scales of the matrix.

    Returns
    -------
    float
        Bits.
    """
    bits = 8.0 * header_bytes / n_matrices
    bits += 8.0 * RANS_STATE_BYTES * n_chunks
    bits += scale_bits
    return bits + CODER_OVERHEAD_BITS * n_weights


def coded_rank_bits(counts: NDArray[np.int64]) -> float:
    """Return the bits in which ranks are coded, with frequencies in 1 / `FREQUENCY_SLOTS`.

    A rank that is rarer than one slot occupies a whole slot, at the cost of all others.

    Parameters
    ----------
    counts : int64 array, `[k]`
        How often each rank occurs.

    Returns
    -------
    float
        Bits of all ranks together; at least `entropy_bits`.
    """
    used = counts[counts > 0].astype(np.float64)
    slots = np.maximum(used, used.sum() / FREQUENCY_SLOTS)
    return float((used * np.log2(slots.sum() / slots)).sum())


def entropy_bits(counts: NDArray[np.int64]) -> float:
    """Return the entropy of ranks: the sum over all weights of -log2 of their rank's share.

    Parameters
    ----------
    counts : int64 array, `[k]`
        How often each rank occurs.

    Returns
    -------
    float
        Bits of all ranks together.

    Examples
    --------
    >>> entropy_bits(np.array([2, 1, 1]))  # 1, 1, 2 and 2 bits
    6.0
    """
    used = counts[counts > 0].astype(np.float64)
    return float((used * np.log2(used.sum() / used)).sum())


def rank_bits(k: int) -> int:
    """Return the bits of a rank that is stored at a fixed width.

    Parameters
    ----------
    k : int
        The number of centroids, 1 to 256.

    Returns
    -------
    int
        1 to 8.

    Examples
    --------
    >>> [rank_bits(k) for k in (1, 2, 3, 16, 17, 256)]
    [1, 1, 2, 4, 5, 8]
    """
    return max(1, (k - 1).bit_length())


def fixed_width_bytes(n_weights: int, k: int) -> int:
    """Return the bytes of a chunk of ranks that is stored at a fixed width.

    Parameters
    ----------
    n_weights : int
        The number of weights in the chunk.
    k : int
        The number of centroids, 1 to 256.

    Returns
    -------
    int
        Whole bytes.
    """
    return (n_weights * rank_bits(k) + 7) // 8


def rans_head_bytes(k: int) -> int:
    """Return the bytes of a chunk that is coded by rANS before its first word.

    Parameters
    ----------
    k : int
        The number of centroids, 1 to 256; the coder needs two symbols or more.

    Returns
    -------
    int
        The frequency of each symbol, and the states.
    """
    return _native.RANS_SYMBOL_BYTES * max(k, 2) + RANS_STATE_BYTES


def packed_header_bytes(n_axes: int, n_chunks: int) -> int:
    """Return the length of a packed tensor's header.

    Parameters
    ----------
    n_axes : int
        The number of axes of the tensor.
    n_chunks : int
        The number of chunks in all its matrices.

    Returns
    -------
    int
        Bytes before the first chunk.
    """
    return HEADER_BYTES + AXIS_BYTES * n_axes + CHUNK_ENTRY_BYTES * n_chunks


def uncoded_tensor_bytes(header_bytes: int, n_weights: int, n_matrices: int, k: int) -> int:
    """Return the bytes of a tensor whose ranks are stored at a fixed width, without scales.

    The planner keeps a tensor dense if this size is not below that of the dense tensor.

    Parameters
    ----------
    header_bytes : int
        The length of the packed header, see `packed_header_bytes`.
    n_weights : int
        The number of weights in all matrices of the tensor.
    n_matrices : int
        The number of codebooks.
    k : int
        The number of centroids in each codebook.

    Returns
    -------
    int
        Header, ranks and codebooks.
    """
    ranks = n_weights * rank_bits(k) // 8
    return header_bytes + ranks + CENTROID_BITS // 8 * n_matrices * k
