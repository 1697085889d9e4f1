"""Turns ranks into weights, block by block, on whatever device the tensors are.

On the CPU the native module looks values up by rank and multiplies them by scales in one pass;
elsewhere, and where the weight is wanted in another dtype than the stored one, torch does the same
steps. Nothing here knows of autograd.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from isotone import _native
from isotone.core.float_format import FloatFormat
from isotone.core.scales.codes import SCALES
from isotone.models.plugin.checkpoint_tensors import TORCH_DTYPES

_BLOCK_WEIGHTS = 1 << 18
_GATHERS: dict[torch.dtype, tuple[Any, Any]] = {
    torch.bfloat16: (np.uint16, _native.gather16),
    torch.float16: (np.uint16, _native.gather16),
    torch.float32: (np.uint32, _native.gather32),
}


def row_step(n_columns: int, device: torch.device) -> int:
    """Return how many rows to decode at once, so that a block stays in a cache.

    Parameters
    ----------
    n_columns : int
        The number of weights in a row.
    device : torch.device
        Where the weights are.

    Returns
    -------
    int
        The number of rows, 1 or more.
    """
    step = max(1, _BLOCK_WEIGHTS // max(n_columns, 1))
    return step if device.type == "cpu" else step * 64  # a launch costs more than memory does


def row_blocks(start: int, stop: int, step: int) -> Iterator[slice]:
    """Cut a range of rows into blocks.

    Parameters
    ----------
    start : int
        The first row.
    stop : int
        The row after the last one.
    step : int
        The number of rows in a block.

    Yields
    ------
    slice
        The rows of a block; the last block may be shorter.
    """
    for first in range(start, stop, step):
        yield slice(first, min(first + step, stop))


def gather(tables: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """Look values up by rank, with torch.

    Parameters
    ----------
    tables : torch.Tensor, `[k]` or `[rows, k]`
        One table for all rows, or one for each row.
    ranks : uint8 torch.Tensor, `[rows, columns]`
        The ranks, each below k; not checked.

    Returns
    -------
    torch.Tensor, `[rows, columns]`
        The values, in the dtype of the tables.
    """
    if tables.ndim == 1:
        return tables.index_select(0, ranks.reshape(-1).int()).view(ranks.shape)
    return tables.gather(1, ranks.long())


def look_up(table: torch.Tensor, ranks: torch.Tensor, out: torch.Tensor) -> None:
    """Write the weights that ranks stand for, of a matrix without scales.

    Parameters
    ----------
    table : torch.Tensor, `[k]`
        The weight of each rank, in the dtype of `out`.
    ranks : uint8 torch.Tensor, `[rows, columns]`
        The ranks, each below k; not checked.
    out : torch.Tensor, `[rows, columns]`
        Receives the weights.
    """
    if _is_native(ranks) and out.dtype in _GATHERS:
        unsigned, native = _GATHERS[out.dtype]
        patterns, places = as_bytes(table).view(unsigned), as_bytes(out).view(unsigned)
        native(ranks.view(-1).numpy(), patterns, places)
    else:
        out.copy_(gather(table, ranks))


def multiply(
    codebooks: torch.Tensor,
    ranks: torch.Tensor,
    scales: tuple[torch.Tensor, torch.Tensor],
    float_format: FloatFormat,
    out: torch.Tensor,
) -> None:
    """Write the weights that ranks and scales stand for, rounded to a float format.

    Parameters
    ----------
    codebooks : float32 torch.Tensor, `[k]` or `[rows, k]`
        The codebook of the matrix, or that of each row's matrix.
    ranks : uint8 torch.Tensor, `[rows, columns]`
        The ranks, each below k; not checked.
    scales : pair of float32 torch.Tensor
        The scales of the rows, `[rows]`, and of the columns, `[columns]` or `[rows, columns]`.
    float_format : FloatFormat
        The stored format, which each weight is rounded to.
    out : torch.Tensor, `[rows, columns]`
        Receives the weights, in its own dtype.
    """
    row, column = scales
    if _is_native(ranks) and codebooks.ndim == 1 and out.dtype == TORCH_DTYPES[float_format.value]:
        arrays = (codebooks.detach().numpy(), row.numpy(), column.numpy())
        _native.multiply(ranks.view(-1).numpy(), 0, *arrays, float_format.native, as_bytes(out))
    else:
        values = gather(codebooks, ranks) * row.unsqueeze(-1) * column
        out.copy_(downcast(values, float_format))


def downcast(values: torch.Tensor, float_format: FloatFormat) -> torch.Tensor:
    """Round float32 values to a stored format; finite values stay finite.

    Parameters
    ----------
    values : float32 torch.Tensor
        The values.
    float_format : FloatFormat
        The format to round to.

    Returns
    -------
    torch.Tensor
        The values in the format's dtype.
    """
    if float_format is FloatFormat.F32:
        return values
    dtype = TORCH_DTYPES[float_format.value]
    largest = torch.finfo(dtype).max
    return values.clamp(-largest, largest).to(dtype)


def put(out: torch.Tensor, positions: torch.Tensor, values: torch.Tensor) -> None:
    """Write some elements of a flat tensor in place; on the CPU NumPy does it faster than torch.

    Parameters
    ----------
    out : torch.Tensor, `[n]`
        Is changed.
    positions : int64 torch.Tensor, `[m]`
        Positions in `out`.
    values : torch.Tensor, `[m]`
        The new elements.
    """
    values = values.to(out.dtype)
    if out.device.type == "cpu" and out.dtype in _GATHERS:
        unsigned, _ = _GATHERS[out.dtype]
        as_bytes(out).view(unsigned)[positions.numpy()] = as_bytes(values).view(unsigned)
    else:
        out[positions] = values


def decode_scales(stored: torch.Tensor) -> torch.Tensor:
    """Return stored scales as float32.

    Parameters
    ----------
    stored : uint8 or floating torch.Tensor
        Codes (see `isotone.core.scales.codes`) or numbers.

    Returns
    -------
    float32 torch.Tensor
        The scales, in the same shape.
    """
    if stored.dtype != torch.uint8:
        return stored.float()
    table = torch.from_numpy(SCALES).to(stored.device)
    return table[stored.long()]


def as_bytes(tensor: torch.Tensor) -> NDArray[np.uint8]:
    """Return the bytes of a contiguous tensor on the CPU, shared with it.

    Parameters
    ----------
    tensor : torch.Tensor
        Any contiguous tensor on the CPU.

    Returns
    -------
    uint8 array, `[bytes]`
        A view of the tensor's memory.
    """
    array: NDArray[np.uint8] = tensor.view(-1).view(torch.uint8).numpy()
    return array


def _is_native(ranks: torch.Tensor) -> bool:
    return ranks.device.type == "cpu" and bool(ranks.is_contiguous())
