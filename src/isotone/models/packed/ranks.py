"""Ranks in memory at a fixed width: packed row by row, and unpacked on whatever device they are.

A row is padded to a multiple of eight ranks, which are then exactly `bits` bytes, so that every row
begins on a byte and any row can be unpacked by itself; the bit order is that of a fixed-width chunk
(docs/format.md). On the CPU the native module unpacks; elsewhere torch does, with shifts.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from isotone import _native

GROUP = 8
"""So many ranks fill whole bytes at any width."""


def row_bytes(n_columns: int, bits: int) -> int:
    """Return the number of bytes of one packed row.

    Parameters
    ----------
    n_columns : int
        The number of ranks in a row.
    bits : int
        The width of a rank, 1 to 8.

    Returns
    -------
    int
        The bytes.

    Examples
    --------
    >>> row_bytes(9, 3)
    6
    """
    return -(-n_columns // GROUP) * bits


def pack_rows(
    runs: Iterable[NDArray[np.uint8]], n_rows: int, n_columns: int, bits: int
) -> torch.Tensor:
    """Pack the ranks of a tensor row by row.

    Parameters
    ----------
    runs : iterable of uint8 arrays
        Runs of ranks that follow each other; their borders may lie anywhere in a row.
    n_rows : int
        The number of rows.
    n_columns : int
        The number of ranks in a row.
    bits : int
        The width of a rank, 1 to 8, which each rank must fit; not checked.

    Returns
    -------
    uint8 torch.Tensor, `[n_rows, row_bytes(n_columns, bits)]`
        The packed rows.
    """
    packed = np.empty((n_rows, row_bytes(n_columns, bits)), np.uint8)
    row, rest = 0, np.empty(0, np.uint8)
    for run in runs:
        ranks = np.concatenate([rest, run]) if len(rest) else run
        n_whole = len(ranks) // n_columns
        rest = ranks[n_whole * n_columns :]
        whole = ranks[: n_whole * n_columns].reshape(n_whole, n_columns)
        if n_columns % GROUP:
            whole = np.pad(whole, ((0, 0), (0, -n_columns % GROUP)))
        _native.pack(whole.reshape(-1), bits, packed[row : row + n_whole].reshape(-1))
        row += n_whole
    return torch.from_numpy(packed)


def unpack_rows(packed: torch.Tensor, n_columns: int, bits: int) -> torch.Tensor:
    """Unpack rows, on the device that they are on.

    Parameters
    ----------
    packed : uint8 torch.Tensor, `[rows, row_bytes(n_columns, bits)]`
        Packed rows.
    n_columns : int
        The number of ranks in a row.
    bits : int
        The width of a rank, 1 to 8.

    Returns
    -------
    uint8 torch.Tensor, `[rows, n_columns]`
        The ranks; at 8 bits, and where rows are padded, a view.
    """
    n_rows = packed.shape[0]
    if bits == 8:
        return packed[:, :n_columns]
    if packed.device.type == "cpu":
        ranks = torch.empty(n_rows, packed.shape[1] // bits * GROUP, dtype=torch.uint8)
        _native.unpack(packed.contiguous().view(-1).numpy(), bits, ranks.view(-1).numpy())
    else:
        ranks = _shifted(packed, bits).reshape(n_rows, -1)
    return ranks[:, :n_columns]


def _shifted(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Unpack with shifts of torch: the ranks `[..., 8]` of each group of `bits` bytes."""
    if GROUP % bits == 0:  # ranks do not cross bytes
        shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
        return (packed.unsqueeze(-1) >> shifts) & ((1 << bits) - 1)
    groups = packed.reshape(-1, bits).long()
    places = 8 * torch.arange(bits, device=packed.device)
    words = (groups << places).sum(-1, keepdim=True)
    shifts = bits * torch.arange(GROUP, device=packed.device)
    return ((words >> shifts) & ((1 << bits) - 1)).to(torch.uint8)
