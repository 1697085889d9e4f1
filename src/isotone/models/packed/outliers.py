"""The protected weights of one tensor in memory: outliers that are kept exactly, found by row.

A position takes two bytes: its low 16 bits, and where each block of 65,536 weights begins.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

_BLOCK_BITS = 16
_LOW = (1 << _BLOCK_BITS) - 1


class Positions:
    """Where the protected weights of a tensor are: see `ProtectedWeights`."""

    low: torch.Tensor
    starts: torch.Tensor
    value: torch.Tensor

    def positions(self) -> torch.Tensor:
        """Return all positions in the flattened tensor, int64 `[n]`."""
        if self.low.device.type == "cpu":
            counts = np.diff(self.starts.numpy())
            blocks = np.repeat(np.arange(len(counts)) << _BLOCK_BITS, counts)
            return torch.from_numpy(blocks + self.low.numpy().view(np.uint16))
        return self._positions_of(torch.arange(len(self.starts) - 1, device=self.low.device))[0]

    def in_rows(self, rows: torch.Tensor, n_columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Find the protected weights among chosen rows.

        Parameters
        ----------
        rows : int64 torch.Tensor, `[m]`
            The rows, in any order, repeated or not.
        n_columns : int
            The number of weights in a row.

        Returns
        -------
        positions : int64 torch.Tensor, `[found]`
            Positions in the flattened `[m, n_columns]`.
        entries : int64 torch.Tensor, `[found]`
            Which of the protected weights each is.

        Notes
        -----
        The cost is that of the blocks that the rows lie in.
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
        """Return the positions in some blocks, and which of the protected weights they are."""
        starts = self.starts.long()
        counts = starts[blocks + 1] - starts[blocks]
        entries = _ranges(starts[blocks], counts)
        low = self.low[entries].long() & _LOW
        return _repeated(blocks << _BLOCK_BITS, counts) + low, entries


class ProtectedWeights(Positions, nn.Module):  # type: ignore[misc]
    """The positions of the protected weights, ascending, and their exact values.

    Parameters
    ----------
    positions : int64 array, `[n]`
        Ascending positions in the flattened tensor.
    value : torch.Tensor, `[n]`
        The weights there, in the tensor's stored dtype.
    n_weights : int
        The number of weights of the tensor.

    Attributes
    ----------
    low : int16 buffer, `[n]`
        The low 16 bits of each position.
    starts : int32 buffer, `[blocks + 1]`
        How many of the protected weights lie before each block of 65,536 weights.
    value : buffer, `[n]`
        The weights.
    """

    def __init__(self, positions: NDArray[np.int64], value: torch.Tensor, n_weights: int) -> None:
        super().__init__()
        n_blocks = (n_weights + _LOW) >> _BLOCK_BITS
        borders = np.searchsorted(positions, np.arange(n_blocks + 1) << _BLOCK_BITS)
        low = (positions & _LOW).astype(np.uint16).view(np.int16)
        self.register_buffer("low", torch.from_numpy(low))
        self.register_buffer("starts", torch.from_numpy(borders.astype(np.int32)))
        self.register_buffer("value", value)


def _ranges(starts: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Return `starts[0], starts[0] + 1, …`, `counts[0]` numbers, then those from `starts[1]`."""
    offsets = _repeated(starts - counts.cumsum(0) + counts, counts)
    return offsets + torch.arange(len(offsets), device=starts.device)


def _repeated(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Repeat each value by its count; on the CPU NumPy is a hundred times faster than torch."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.repeat(values.numpy(), counts.numpy()))
    return values.repeat_interleave(counts)
