import numpy as np
from numpy.typing import NDArray

RANS_SLOTS: int
RANS_STATE_BYTES: int
RANS_SYMBOL_BYTES: int
BIN_KEY_BITS: int
PROTECTED_LABEL: int

def solve(
    values: NDArray[np.float64], weights: NDArray[np.float64], k: int
) -> NDArray[np.int64]: ...
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
def balance(
    bits: NDArray[np.uint8],
    format: int,
    inverse: NDArray[np.float32],
    row: NDArray[np.float32],
    column: NDArray[np.float64],
) -> None: ...
def moments(bits: NDArray[np.uint8], format: int, n: int) -> tuple[float, float]: ...
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
def round_with_feedback(
    weights: NDArray[np.float32],
    n_columns: int,
    factor: NDArray[np.float32],
    labels: NDArray[np.uint16],
    codebook: NDArray[np.float32],
    ranks: NDArray[np.uint8],
) -> NDArray[np.int64]: ...
def squared_error(a: NDArray[np.uint8], b: NDArray[np.uint8], format: int, n: int) -> float: ...
def pack(ranks: NDArray[np.uint8], width: int, out: NDArray[np.uint8]) -> None: ...
def unpack(packed: NDArray[np.uint8], width: int, ranks: NDArray[np.uint8]) -> None: ...
def rans_encode(ranks: NDArray[np.uint8], k: int, out: NDArray[np.uint8]) -> int: ...
def rans_decode(coded: NDArray[np.uint8], k: int, ranks: NDArray[np.uint8]) -> bool: ...
