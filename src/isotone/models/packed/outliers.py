"""The protected weights of one tensor in memory: positions in two bytes each, found by row."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

_BLOCK_BITS = 16
_LOW = (1 << _BLOCK_BITS) - 1


class ProtectedWeights(nn.Module):  # type: ignore[misc]
    """Positions, ascending, and exact values.

    Positions are kept as their low 16 bits, and where each block of 65,536 weights begins among
    them. Buffers: low [n] int16, starts [blocks + 1] int32, value [n] of the tensor's stored dtype.
    """

    low: torch.Tensor
    starts: torch.Tensor
    value: torch.Tensor

    def __init__(self, positions: NDArray[np.int64], value: torch.Tensor, n_weights: int) -> None:
        super().__init__()
        n_blocks = (n_weights + _LOW) >> _BLOCK_BITS
        borders = np.searchsorted(positions, np.arange(n_blocks + 1) << _BLOCK_BITS)
        low = (positions & _LOW).astype(np.uint16).view(np.int16)
        self.register_buffer("low", torch.from_numpy(low))
        self.register_buffer("starts", torch.from_numpy(borders.astype(np.int32)))
        self.register_buffer("value", value)

    def positions(self) -> torch.Tensor:
        """[n] int64: all positions in the flattened tensor."""
        if self.low.device.type == "cpu":
            counts = np.diff(self.starts.numpy())
            blocks = np.repeat(np.arange(len(counts)) << _BLOCK_BITS, counts)
            return torch.from_numpy(blocks + self.low.numpy().view(np.uint16))
        return self._positions_of(torch.arange(len(self.starts) - 1, device=self.low.device))[0]

    def in_rows(self, rows: torch.Tensor, n_columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Where protected weights lie among chosen rows.

        rows: [m] int64, in any order, repeated or not. Returns positions in the flattened
        [m, n_columns], and which of the protected weights each is; both int64.
        Cost: that of the blocks that the rows lie in.
        """
        first = (rows * n_columns) >> _BLOCK_BITS
        last = (rows * n_columns + n_columns - 1) >> _BLOCK_BITS
        blocks = torch.unique(_ranges(first, last - first + 1))
        positions, entries = self._positions_of(blocks)
        begin = torch.searchsorted(positions, rows * n_columns)
        end = torch.searchsorted(positions, (rows + 1) * n_columns)
        found = _ranges(begin, end - begin)
        places = _repeated(torch.arange(len(rows), device=rows.device), end - begin)
        return places * n_columns + positions[found] % n_columns, entries[found]

    def _positions_of(self, blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The positions in some blocks, and which of the protected weights they are."""
        starts = self.starts.long()
        counts = starts[blocks + 1] - starts[blocks]
        entries = _ranges(starts[blocks], counts)
        low = self.low[entries].long() & _LOW
        return _repeated(blocks << _BLOCK_BITS, counts) + low, entries


def _ranges(starts: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """starts[0], starts[0] + 1, ... for counts[0] numbers, then from starts[1], and so on."""
    offsets = _repeated(starts - counts.cumsum(0) + counts, counts)
    return offsets + torch.arange(len(offsets), device=starts.device)


def _repeated(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Each value as often as counted. On the CPU NumPy's is a hundred times faster than torch's."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.repeat(values.numpy(), counts.numpy()))
    return values.repeat_interleave(counts)
