"""Positions of protected weights as 16-bit gaps.

Entry e < 65535 says: skip e weights, the next one is protected. 65535 says: skip 65535 weights.
About one weight in 500 is protected, so nearly all gaps fit one entry.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isotone.errors import FormatError

_SKIP = 65535


def encode_positions(positions: NDArray[np.int64], after: int = -1) -> NDArray[np.uint16]:
    """Gaps of ascending positions, the first one counted from the position `after`."""
    gaps = np.diff(positions, prepend=after) - 1
    skips = gaps // _SKIP
    entries = np.full(len(positions) + int(skips.sum()), _SKIP, np.uint16)
    entries[np.arange(len(positions)) + np.cumsum(skips)] = gaps % _SKIP
    return entries


def decode_positions(entries: NDArray[np.uint16], n_weights: int, name: str) -> NDArray[np.int64]:
    """The positions, ascending and below n_weights; raises FormatError, naming the tensor."""
    is_skip = entries == _SKIP
    positions: NDArray[np.int64] = (
        np.cumsum(np.where(is_skip, _SKIP, entries.astype(np.int64) + 1)) - 1
    )
    positions = positions[~is_skip]
    if len(entries) and (is_skip[-1] or positions[-1] >= n_weights):
        raise FormatError(f"{name}: protected positions reach beyond its {n_weights} weights")
    return positions
