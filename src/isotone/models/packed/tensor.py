"""One weight tensor as packed ranks and values in memory, and how it is decoded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from isotone.core.values import Values
from isotone.models.packed.kernels import (
    decode_scales,
    downcast,
    look_up,
    multiply,
    put,
    row_blocks,
    row_step,
)
from isotone.models.packed.outliers import ProtectedWeights
from isotone.models.packed.ranks import unpack_rows
from isotone.models.plugin.checkpoint_tensors import TORCH_DTYPES


class PackedTensor(nn.Module):  # type: ignore[misc]
    """A weight tensor, or a stack of matrices, as packed ranks and the values they stand for.

    The ranks say which centroid each weight has, the codebook which value each centroid has. They
    are kept apart: the ranks are a buffer that nothing changes, the codebook a parameter that may
    be trained, edited or shared. Rows are those of each matrix, one matrix after the other; columns
    are all further axes. Protected weights are outliers that are kept exactly.

    Parameters
    ----------
    name : str
        The name of the tensor in the checkpoint.
    values : Values
        The codebook, scales and protected weights.
    packed_ranks : uint8 torch.Tensor, `[rows, row_bytes]`
        The ranks at a fixed width: see `isotone.models.packed.ranks`.
    bits : int
        The width of a rank, 1 to 8.

    Attributes
    ----------
    codebook : float32 parameter, `[k]` or `[matrices, k]`
        The centroids; frozen until somebody trains them.
    row_scale : buffer, `[rows]`, or None
        The scales of the rows as they are stored: codes or numbers.
    column_scale : buffer, `[matrices, columns]`, or None
        The scales of the columns, likewise.
    protected : ProtectedWeights or None
        The weights that are kept exactly.
    shape : torch.Size
        The shape of the weight.
    stored_dtype : torch.dtype
        The dtype that decoded weights are rounded to.
    dtype : torch.dtype
        The dtype that they are given back in.
    """

    packed_ranks: torch.Tensor
    row_scale: torch.Tensor | None
    column_scale: torch.Tensor | None
    protected: ProtectedWeights | None

    def __init__(self, name: str, values: Values, packed_ranks: torch.Tensor, bits: int) -> None:
        super().__init__()
        self.name, self.bits = name, bits
        self.shape = torch.Size(values.shape)
        self.float_format = values.float_format
        self.stored_dtype = self.dtype = TORCH_DTYPES[values.float_format.value]
        self.n_matrices = values.n_matrices
        self.n_rows = packed_ranks.shape[0]
        self.n_columns = math.prod(self.shape) // self.n_rows
        self.register_buffer("packed_ranks", packed_ranks)
        codebook = torch.from_numpy(np.array(values.codebook))
        self.codebook = nn.Parameter(codebook, requires_grad=False)
        self.register_buffer("row_scale", _buffer(values.row_scale, (self.n_rows,)))
        self.register_buffer(
            "column_scale", _buffer(values.column_scale, (self.n_matrices, self.n_columns))
        )
        self.protected = None
        if len(values.protected_index):
            patterns = np.array(values.protected_value)
            exact = torch.from_numpy(patterns.view(f"i{patterns.itemsize}"))
            self.protected = ProtectedWeights(
                values.protected_index, exact.view(self.stored_dtype), values.n_weights
            )

    @property
    def device(self) -> torch.device:
        """The device that the tensor is on."""
        return self.packed_ranks.device

    def ranks(self) -> torch.Tensor:
        """Return the rank of each weight, unpacked: uint8 in the shape of the weight."""
        return unpack_rows(self.packed_ranks, self.n_columns, self.bits).reshape(self.shape)

    def ranks_of(self, rows: slice | torch.Tensor) -> torch.Tensor:
        """Return the ranks of some rows.

        Parameters
        ----------
        rows : slice or integer torch.Tensor, `[m]`
            The rows.

        Returns
        -------
        uint8 torch.Tensor, `[m, columns]`
            The ranks, maybe as a view that is not contiguous.
        """
        return unpack_rows(self.packed_ranks[rows], self.n_columns, self.bits)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def decode(self, rows: torch.Tensor | None) -> torch.Tensor:
        """Return the dense weight as a matrix, without gradients.

        Parameters
        ----------
        rows : integer torch.Tensor, `[m]`, or None
            The rows to decode, in any order, repeated or not; None for all.

        Returns
        -------
        torch.Tensor, `[m, columns]`
            The rows in `dtype`.
        """
        n_rows = self.n_rows if rows is None else len(rows)
        out = torch.empty(n_rows, self.n_columns, dtype=self.dtype, device=self.device)
        for part, matrix in self.blocks(rows):
            ids = part if rows is None else rows[part]
            self._decode_block(ids, matrix, out[part])
        if self.protected is not None:
            put(out.view(-1), *self.protected_in(rows))
        return out

    def blocks(self, rows: torch.Tensor | None) -> Iterator[tuple[slice, Any]]:
        """Cut rows into blocks that are small enough to stay in a cache.

        Parameters
        ----------
        rows : integer torch.Tensor, `[m]`, or None
            The rows; None for all.

        Yields
        ------
        part : slice
            Positions among the rows.
        matrix : int or integer torch.Tensor
            The matrix that the block is of; a tensor with the matrix of each row where they differ.
        """
        height = self.n_rows // self.n_matrices
        step = row_step(self.n_columns, self.device)
        if rows is not None:
            for part in row_blocks(0, len(rows), step):
                yield part, 0 if self.n_matrices == 1 else rows[part] // height
            return
        for matrix in range(self.n_matrices):
            for part in row_blocks(matrix * height, (matrix + 1) * height, step):
                yield part, matrix

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def scales(self, rows: Any, matrix: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scales of some rows and of their columns; 1 where there are none.

        Parameters
        ----------
        rows : slice or integer torch.Tensor, `[m]`
            The rows.
        matrix : int or integer torch.Tensor, `[m]`
            The matrix that the rows are of, or that of each row.

        Returns
        -------
        row : float32 torch.Tensor, `[m]`
            The scales of the rows.
        column : float32 torch.Tensor, `[columns]` or `[m, columns]`
            The scales of the columns, for each row where `matrix` is a tensor.
        """
        n_rows = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
        row = torch.ones(n_rows, device=self.device)
        if self.row_scale is not None:
            row = decode_scales(self.row_scale[rows])
        column = torch.ones(self.n_columns, device=self.device)
        if self.column_scale is not None:
            column = decode_scales(self.column_scale[matrix])
        return row, column

    def all_scales(self, name: Literal["row_scale", "column_scale"]) -> torch.Tensor:
        """Return all scales of one side.

        Parameters
        ----------
        name : {"row_scale", "column_scale"}
            The side, which must have scales.

        Returns
        -------
        float32 torch.Tensor, `[rows]` or `[matrices, columns]`
            The scales.
        """
        return decode_scales(getattr(self, name).detach())

    def protected_in(self, rows: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Find the protected weights among some rows of a tensor that has protected weights.

        Parameters
        ----------
        rows : integer torch.Tensor, `[m]`, or None
            The rows; None for all.

        Returns
        -------
        positions : int64 torch.Tensor, `[n]`
            Positions in the flattened `[m, columns]`.
        values : torch.Tensor, `[n]`
            The weights there, in `stored_dtype`.
        """
        assert self.protected is not None
        if rows is None:
            return self.protected.positions(), self.protected.value
        positions, entries = self.protected.in_rows(rows.long(), self.n_columns)
        return positions, self.protected.value[entries]

    def _decode_block(self, rows: Any, matrix: Any, out: torch.Tensor) -> None:
        """Write the weights of a block of rows, but for protected ones."""
        ranks = self.ranks_of(rows)
        codebook = self.codebook.view(self.n_matrices, -1)[matrix]
        if self.row_scale is not None or self.column_scale is not None:
            multiply(codebook, ranks, self.scales(rows, matrix), self.float_format, out)
        else:
            look_up(downcast(codebook, self.float_format).to(self.dtype), ranks, out)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        """Follow moves; a change of dtype changes `dtype`, and leaves what is stored as it is."""
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=self.device)).dtype

        def move(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move, recurse)

    def extra_repr(self) -> str:
        """Return the name, the shape and the widths, for `print(model)`."""
        return f"{self.name}, {tuple(self.shape)}, k={self.codebook.shape[-1]}, dtype={self.dtype}"


def _buffer(scale: Any, shape: tuple[int, ...]) -> torch.Tensor | None:
    return None if scale is None else torch.from_numpy(np.array(scale)).view(shape)
