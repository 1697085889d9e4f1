"""The gradients of a clustered weight: of its codebook, and of its scales.

A codebook's gradient is a sum over the weights of each rank. The dense weight is decoded when it is
needed, for the forward pass and once more for the backward one, and its gradient is summed block by
block as it comes out of a matrix product; so nothing dense outlives the pass of one layer, and
there is no one-hot array and nothing K times the size of anything. Rounding to the stored dtype is
taken as the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from isotone import _native
from isotone.models.packed.decoding import Decoding
from isotone.models.packed.kernels import gather


class DecodeWithGradient(torch.autograd.Function):  # type: ignore[misc]
    """The dense weight, whole or some rows of it. Saves nothing dense."""

    @staticmethod
    def forward(  # what is trained is an argument so that autograd sees it
        ctx: Any,
        _codebook: torch.Tensor,
        _row_scale: torch.Tensor | None,
        _column_scale: torch.Tensor | None,
        tensor: Decoding,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.tensor, ctx.rows = tensor, rows
        return tensor.decode(rows)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        sums = GradientSums(ctx.tensor, ctx.rows, ctx.needs_input_grad)
        for part, matrix in ctx.tensor.blocks(ctx.rows):
            sums.add(gradient[part], part, matrix)
        return (*sums.gradients(), None, None)


class LinearWithGradient(torch.autograd.Function):  # type: ignore[misc]
    """`torch.nn.functional.linear` without a bias, of a weight that is one matrix.

    Saves the inputs, as an ordinary linear layer does, and not the dense weight.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        _codebook: torch.Tensor,
        _row_scale: torch.Tensor | None,
        _column_scale: torch.Tensor | None,
        tensor: Decoding,
    ) -> torch.Tensor:
        ctx.tensor = tensor
        ctx.save_for_backward(inputs)
        return inputs @ tensor.decode(None).to(inputs.dtype).t()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        tensor: Decoding = ctx.tensor
        (inputs,) = ctx.saved_tensors
        to_inputs = None
        if ctx.needs_input_grad[0]:
            to_inputs = gradient @ tensor.decode(None).to(gradient.dtype)
        gradient = gradient.reshape(-1, tensor.n_rows)
        inputs = inputs.reshape(-1, tensor.n_columns)
        sums = GradientSums(tensor, None, ctx.needs_input_grad[1:])
        for part, matrix in tensor.blocks(None):
            sums.add(gradient[:, part].t() @ inputs, part, matrix)
        return (to_inputs, *sums.gradients(), None)


class GradientSums:
    """The gradients of codebook and scales as they gather over blocks of rows, in float64.

    Parameters
    ----------
    tensor : Decoding
        The packed tensor.
    rows : integer torch.Tensor, `[m]`, or None
        The rows that were decoded; None for all.
    wanted : sequence of bool
        Whether the codebook, the row and the column scales have a gradient.
    """

    def __init__(self, tensor: Decoding, rows: torch.Tensor | None, wanted: Sequence[bool]) -> None:
        self._tensor, self._rows = tensor, rows
        self._protected = None if tensor.protected is None else tensor.protected_in(rows)[0]
        sizes = (
            (tensor.n_matrices, tensor.codebook.shape[-1]),
            (tensor.n_rows,),
            (tensor.n_matrices, tensor.n_columns),
        )
        self._codebook, self._row, self._column = (
            torch.zeros(size, dtype=torch.float64, device=tensor.device) if want else None
            for size, want in zip(sizes, wanted, strict=False)
        )

    def add(self, gradient: torch.Tensor, part: slice, matrix: Any) -> None:
        """Add a block of the dense weight's gradient.

        Parameters
        ----------
        gradient : torch.Tensor, `[block, columns]`
            The gradient, of any floating dtype.
        part : slice
            Which of the rows the block is of.
        matrix : int or integer torch.Tensor
            The matrix of the block, or that of each row: see `Decoding.blocks`.
        """
        tensor = self._tensor
        rows = part if self._rows is None else self._rows[part]
        gradient = self._of_clustered(gradient, part)
        ranks = tensor.ranks_of(rows)
        row, column = tensor.scales(rows, matrix)
        if self._codebook is not None:
            if isinstance(matrix, int) and tensor.device.type == "cpu":
                sums = self._codebook[matrix].numpy()
                arrays = (gradient.view(-1).numpy(), row.numpy(), column.numpy())
                _native.sum_by_rank(ranks.reshape(-1).numpy(), 0, *arrays, sums)
            else:
                self._sum_by_rank(ranks, gradient * row.unsqueeze(-1) * column, matrix)
        if self._row is not None or self._column is not None:
            codebooks = tensor.codebook.detach().view(tensor.n_matrices, -1)
            terms = gradient * gather(codebooks[matrix], ranks)
            self._add_scales(terms, row, column, rows, matrix)

    def gradients(self) -> tuple[torch.Tensor | None, ...]:
        """Return what was gathered, in the shapes of codebook, row and column scales."""
        tensor = self._tensor
        pairs = (
            (self._codebook, tensor.codebook),
            (self._row, tensor.row_scale),
            (self._column, tensor.column_scale),
        )
        return tuple(
            None if sums is None or like is None else sums.float().view(like.shape)
            for sums, like in pairs
        )

    def _of_clustered(self, gradient: torch.Tensor, part: slice) -> torch.Tensor:
        """Return the block in float32, zero where a protected weight stands."""
        if self._protected is None:
            return gradient.float().contiguous()
        n_columns = self._tensor.n_columns
        borders = torch.tensor([part.start, part.stop], device=gradient.device) * n_columns
        first, last = torch.searchsorted(self._protected, borders).tolist()
        masked = gradient.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        masked.view(-1)[self._protected[first:last] - part.start * n_columns] = 0
        return masked

    def _sum_by_rank(self, ranks: torch.Tensor, terms: torch.Tensor, matrix: Any) -> None:
        """Sum terms by rank where the native code cannot: rows of several matrices, a GPU."""
        assert self._codebook is not None
        k = self._codebook.shape[-1]
        first = matrix.unsqueeze(-1) if isinstance(matrix, torch.Tensor) else matrix
        slots = (ranks.long() + first * k).reshape(-1)
        total = self._codebook.view(-1)
        total += torch.bincount(slots, terms.reshape(-1).double(), minlength=len(total))

    def _add_scales(
        self, terms: torch.Tensor, row: torch.Tensor, column: torch.Tensor, rows: Any, matrix: Any
    ) -> None:
        """Add to the scales' gradients; `terms` are gradient times centroid, [rows, columns]."""
        if self._row is not None:
            sums = (terms * column).sum(-1).double()
            if isinstance(rows, slice):
                self._row[rows] += sums
            else:
                self._row.index_add_(0, rows, sums)
        if self._column is not None:
            products = (terms * row.unsqueeze(-1)).double()
            if isinstance(matrix, int):
                self._column[matrix] += products.sum(0)
            else:
                self._column.index_add_(0, matrix, products)
