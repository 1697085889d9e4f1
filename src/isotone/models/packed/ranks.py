"""Ranks at a fixed width in memory: packed row by row, unpacked on whatever device they are.

A row is padded to a multiple of eight ranks, which are then exactly `bits` bytes, so that every row
begins on a byte and any row can be unpacked alone; the bit order is that of a fixed-width chunk
(docs/format.md). On the CPU the native module unpacks; elsewhere torch does, with shifts.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from isotone import _native

GROUP = 8
"""Ranks that fill whole bytes at any width."""


def row_bytes(n_columns: int, bits: int) -> int:
    """Bytes of one packed row."""
    return -(-n_columns // GROUP) * bits


def pack_rows(
    runs: Iterable[NDArray[np.uint8]], n_rows: int, n_columns: int, bits: int
) -> torch.Tensor:
    """Pack runs of ranks that follow each other, cut anywhere: [n_rows, row_bytes] uint8."""
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
    """The ranks of packed rows: [rows, row_bytes] uint8 -> [rows, n_columns] uint8, or a view."""
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
    if GROUP % bits == 0:  # ranks do not cross bytes
        shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
        return (packed.unsqueeze(-1) >> shifts) & ((1 << bits) - 1)
    groups = packed.reshape(-1, bits).long()
    places = 8 * torch.arange(bits, device=packed.device)
    words = (groups << places).sum(-1, keepdim=True)
    shifts = bits * torch.arange(GROUP, device=packed.device)
    return ((words >> shifts) & ((1 << bits) - 1)).to(torch.uint8)
