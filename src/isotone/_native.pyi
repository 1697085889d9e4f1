# The native module: inner loops in C++17, without validation or policy, and without the GIL. The
# headers in native/ describe each function. Arrays are flat. `bits` are patterns of the float
# format whose number (FloatFormat.native) is `format`. `position` is that of the first weight in
# the matrix.

import numpy as np
from numpy.typing import NDArray

# Constants of the coder (rans.hpp), of bins (histogram.hpp), and of labels (assign.hpp).
RANS_SLOTS: int
RANS_STATE_BYTES: int
RANS_SYMBOL_BYTES: int
BIN_KEY_BITS: int
PROTECTED_LABEL: int

# k-means by dynamic programming (solver.hpp).
def solve(
    values: NDArray[np.float64], weights: NDArray[np.float64], k: int
) -> NDArray[np.int64]: ...

# Counting weights (histogram.hpp).
def count_patterns(bits: NDArray[np.uint16], counts: NDArray[np.uint64]) -> None: ...
def count_bins(
    bits: NDArray[np.uint32],
    counts: NDArray[np.uint64],
    sums: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> None: ...
def count_within_bins(
    bits: NDArray[np.uint32], slot: NDArray[np.int32], counts: NDArray[np.uint64]
) -> None: ...
def count_not_finite(bits: NDArray[np.uint32]) -> int: ...

class DistinctCounter:
    def __init__(self, limit: int) -> None: ...
    def add(self, bits: NDArray[np.uint32]) -> bool: ...
    def sorted(self) -> tuple[NDArray[np.uint32], NDArray[np.int64]]: ...

# Weights to ranks, and ranks to weights (assign.hpp).
def assign16(
    bits: NDArray[np.uint16], labels: NDArray[np.uint16], ranks: NDArray[np.uint8]
) -> NDArray[np.int64]: ...
def assign32(
    bits: NDArray[np.uint32],
    cell: NDArray[np.uint32],
    starts: NDArray[np.uint32],
    labels: NDArray[np.uint16],
    ranks: NDArray[np.uint8],
) -> NDArray[np.int64]: ...
def gather16(
    ranks: NDArray[np.uint8], table: NDArray[np.uint16], out: NDArray[np.uint16]
) -> None: ...
def gather32(
    ranks: NDArray[np.uint8], table: NDArray[np.uint32], out: NDArray[np.uint32]
) -> None: ...

# Entropy-constrained clustering (entropy.hpp).
def partition(
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    bit: float,
    centroid: float,
    protected_weight: float,
    labels: NDArray[np.int32],
) -> None: ...
def lloyd_iterations(
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    bit: float,
    centroid: float,
    protected_weight: float,
    labels: NDArray[np.int32],
) -> float: ...

# Scales (scale.hpp).
def balance(
    bits: NDArray[np.uint8],
    format: int,
    inverse: NDArray[np.float32],
    row: NDArray[np.float32],
    column: NDArray[np.float64],
) -> None: ...
def divide(
    bits: NDArray[np.uint8],
    format: int,
    position: int,
    inverse_row: NDArray[np.float32],
    inverse_column: NDArray[np.float32],
    keys: NDArray[np.uint16],
) -> None: ...
def multiply(
    ranks: NDArray[np.uint8],
    position: int,
    codebook: NDArray[np.float32],
    row: NDArray[np.float32],
    column: NDArray[np.float32],
    format: int,
    out: NDArray[np.uint8],
) -> None: ...
def sum_by_rank(
    ranks: NDArray[np.uint8],
    position: int,
    gradient: NDArray[np.float32],
    row: NDArray[np.float32],
    column: NDArray[np.float32],
    sums: NDArray[np.float64],
) -> None: ...

# GPTQ error feedback (gptq.hpp).
def round_with_feedback(
    weights: NDArray[np.float32],
    n_columns: int,
    factor: NDArray[np.float32],
    labels: NDArray[np.uint16],
    codebook: NDArray[np.float32],
    ranks: NDArray[np.uint8],
) -> NDArray[np.int64]: ...

# Sums over weights (moments.hpp).
def moments(bits: NDArray[np.uint8], format: int, n: int) -> tuple[float, float]: ...
def squared_error(a: NDArray[np.uint8], b: NDArray[np.uint8], format: int, n: int) -> float: ...

# Coding ranks (bits.hpp, rans.hpp).
def pack(ranks: NDArray[np.uint8], width: int, out: NDArray[np.uint8]) -> None: ...
def unpack(packed: NDArray[np.uint8], width: int, ranks: NDArray[np.uint8]) -> None: ...
def rans_encode(ranks: NDArray[np.uint8], k: int, out: NDArray[np.uint8]) -> int: ...
def rans_decode(coded: NDArray[np.uint8], k: int, ranks: NDArray[np.uint8]) -> bool: ...
