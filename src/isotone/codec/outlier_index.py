"""Positions of protected weights as 16-bit deltas.

Entry e < 65535 says: skip e weights, the next one is protected. 65535 says: skip 65535 weights.
About one weight in 500 is protected, so nearly all deltas fit one entry.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isotone.errors import FormatError

_SKIP = 65535


def encode_positions(positions: NDArray[np.int64], after: int = -1) -> NDArray[np.uint16]:
    """Encode ascending positions as deltas.

    Parameters
    ----------
    positions : int64 array, `[n]`
        Ascending and distinct positions of protected weights.
    after : int
        The position from which the first delta is counted: that of the protected weight before.

    Returns
    -------
    uint16 array
        One entry for each position, and one more for each 65,535 weights that are skipped.

    Examples
    --------
    >>> encode_positions(np.array([3, 65538, 65539]))
    array([    3, 65534,     0], dtype=uint16)
    """
    skipped = np.diff(positions, prepend=after) - 1
    skips = skipped // _SKIP
    entries = np.full(len(positions) + int(skips.sum()), _SKIP, np.uint16)
    entries[np.arange(len(positions)) + np.cumsum(skips)] = skipped % _SKIP
    return entries


def decode_positions(entries: NDArray[np.uint16], n_weights: int, name: str) -> NDArray[np.int64]:
    """Decode the positions of protected weights.

    Parameters
    ----------
    entries : uint16 array
        What `encode_positions` returned.
    n_weights : int
        The number of weights in the tensor.
    name : str
        The name of the tensor, for messages.

    Returns
    -------
    int64 array, `[n]`
        Ascending positions below `n_weights`.

    Raises
    ------
    FormatError
        If a position is beyond the tensor, or the last entry skips to nothing.
    """
    is_skip = entries == _SKIP
    positions: NDArray[np.int64] = (
        np.cumsum(np.where(is_skip, _SKIP, entries.astype(np.int64) + 1)) - 1
    )
    positions = positions[~is_skip]
    if len(entries) and (is_skip[-1] or positions[-1] >= n_weights):
        raise FormatError(f"{name}: protected positions reach beyond its {n_weights} weights")
    return positions
