"""How the arrays of a packed tensor are decoded, wherever they are kept.

A module of a model keeps them, and an operator that torch.compile sees is given them as arguments:
both decode with the methods of this class.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from isotone.core.float_format import FloatFormat
from isotone.models.packed.kernels import (
    decode_scales,
    downcast,
    look_up,
    multiply,
    put,
    row_blocks,
    row_step,
)
from isotone.models.packed.outliers import Positions
from isotone.models.packed.ranks import unpack_rows


class Decoding:
    """What is computed from the arrays of a packed tensor; see `PackedTensor` for what they are.

    Rows are those of each matrix, one matrix after the other.
    """

    packed_ranks: torch.Tensor
    codebook: torch.Tensor
    row_scale: torch.Tensor | None
    column_scale: torch.Tensor | None
    protected: Positions | None
    n_matrices: int
    n_rows: int
    n_columns: int
    bits: int
    float_format: FloatFormat
    dtype: torch.dtype

    @property
    def device(self) -> torch.device:
        """The device that the tensor is on."""
        return self.packed_ranks.device

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
