"""The gradients of a clustered weight: of its codebook, and of its factors.

A codebook's gradient is a sum over the weights of each rank. The dense weight is decoded when it is
needed, for the forward pass and once more for the backward one, and its gradient is summed block by
block as it comes out of a matrix product; so nothing dense outlives the pass of one layer, and
there is no one-hot array and nothing K times the size of anything. Rounding to the stored dtype is
taken as the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from isotone import _native
from isotone.models.packed.ranks import unpack_rows

if TYPE_CHECKING:
    from isotone.models.packed.weight import ClusteredWeight


class DecodeWithGradient(torch.autograd.Function):  # type: ignore[misc]
    """The dense weight, whole or some rows of it. Saves nothing dense."""

    @staticmethod
    def forward(  # what is trained is an argument so that autograd sees it
        ctx: Any,
        _codebook: torch.Tensor,
        _row_scale: torch.Tensor | None,
        _column_scale: torch.Tensor | None,
        weight: ClusteredWeight,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.weight, ctx.rows = weight, rows
        return weight.decode(rows)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        sums = _Sums(ctx.weight, ctx.rows, ctx.needs_input_grad)
        for part, matrix in ctx.weight.blocks(ctx.rows):
            sums.add(gradient[part], part, matrix)
        return (*sums.gradients(), None, None)


class LinearWithGradient(torch.autograd.Function):  # type: ignore[misc]
    """torch.nn.functional.linear without a bias, of a weight that is one matrix.

    Saves the inputs, as an ordinary linear layer does, and not the dense weight.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        _codebook: torch.Tensor,
        _row_scale: torch.Tensor | None,
        _column_scale: torch.Tensor | None,
        weight: ClusteredWeight,
    ) -> torch.Tensor:
        ctx.weight = weight
        ctx.save_for_backward(inputs)
        return inputs @ weight.decode(None).to(inputs.dtype).t()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        weight: ClusteredWeight = ctx.weight
        (inputs,) = ctx.saved_tensors
        to_inputs = None
        if ctx.needs_input_grad[0]:
            to_inputs = gradient @ weight.decode(None).to(gradient.dtype)
        gradient = gradient.reshape(-1, weight.n_rows)
        inputs = inputs.reshape(-1, weight.n_columns)
        sums = _Sums(weight, None, ctx.needs_input_grad[1:])
        for part, matrix in weight.blocks(None):
            sums.add(gradient[:, part].t() @ inputs, part, matrix)
        return (to_inputs, *sums.gradients(), None)


class _Sums:
    """Gradients as they gather over blocks of rows, in double."""

    def __init__(
        self, weight: ClusteredWeight, rows: torch.Tensor | None, wanted: Sequence[bool]
    ) -> None:
        """rows: those that were decoded, None for all. wanted: codebook, row and column factors."""
        self._weight, self._rows = weight, rows
        self._protected = None if weight.protected is None else weight.protected_in(rows)[0]
        sizes = (
            (weight.n_matrices, weight.codebook.shape[-1]),
            (weight.n_rows,),
            (weight.n_matrices, weight.n_columns),
        )
        self._codebook, self._row, self._column = (
            torch.zeros(size, dtype=torch.float64, device=weight.device) if want else None
            for size, want in zip(sizes, wanted, strict=False)
        )

    def add(self, gradient: torch.Tensor, part: slice, matrix: Any) -> None:
        """Add a block of the dense weight's gradient: [rows, columns] of any floating dtype."""
        weight = self._weight
        ids = part if self._rows is None else self._rows[part]
        gradient = self._of_clustered(gradient, part)
        ranks = unpack_rows(weight.index[ids], weight.n_columns, weight.bits)
        row, column = weight.factors(ids, matrix)
        if self._codebook is not None:
            if isinstance(matrix, int) and weight.device.type == "cpu":
                sums = self._codebook[matrix].numpy()
                arrays = (gradient.view(-1).numpy(), row.numpy(), column.numpy())
                _native.sum_by_rank(ranks.reshape(-1).numpy(), 0, *arrays, sums)
            else:
                self._count(ranks, gradient * row.unsqueeze(-1) * column, matrix)
        if self._row is not None or self._column is not None:
            codebooks = weight.codebook.detach().view(weight.n_matrices, -1)
            terms = gradient * gather(codebooks[matrix], ranks)
            self._add_factors(terms, row, column, ids, matrix)

    def gradients(self) -> tuple[torch.Tensor | None, ...]:
        """What was gathered, in the shapes of codebook, row and column factors."""
        weight = self._weight
        pairs = (
            (self._codebook, weight.codebook),
            (self._row, weight.row_scale),
            (self._column, weight.column_scale),
        )
        return tuple(
            None if sums is None or like is None else sums.float().view(like.shape)
            for sums, like in pairs
        )

    def _of_clustered(self, gradient: torch.Tensor, part: slice) -> torch.Tensor:
        """The block in float32, zero where a protected weight stands."""
        if self._protected is None:
            return gradient.float().contiguous()
        n_columns = self._weight.n_columns
        borders = torch.tensor([part.start, part.stop], device=gradient.device) * n_columns
        first, last = torch.searchsorted(self._protected, borders).tolist()
        masked = gradient.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        masked.view(-1)[self._protected[first:last] - part.start * n_columns] = 0
        return masked

    def _count(self, ranks: torch.Tensor, terms: torch.Tensor, matrix: Any) -> None:
        """Sum terms by rank where the native code cannot: rows of several matrices, a GPU."""
        assert self._codebook is not None
        k = self._codebook.shape[-1]
        first = matrix.unsqueeze(-1) if isinstance(matrix, torch.Tensor) else matrix
        slots = (ranks.long() + first * k).reshape(-1)
        total = self._codebook.view(-1)
        total += torch.bincount(slots, terms.reshape(-1).double(), minlength=len(total))

    def _add_factors(
        self, terms: torch.Tensor, row: torch.Tensor, column: torch.Tensor, ids: Any, matrix: Any
    ) -> None:
        """terms: gradient times codebook value [rows, columns]."""
        if self._row is not None:
            sums = (terms * column).sum(-1).double()
            if isinstance(ids, slice):
                self._row[ids] += sums
            else:
                self._row.index_add_(0, ids, sums)
        if self._column is not None:
            rows = (terms * row.unsqueeze(-1)).double()
            if isinstance(matrix, int):
                self._column[matrix] += rows.sum(0)
            else:
                self._column.index_add_(0, matrix, rows)


def gather(tables: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """Values by rank: tables [k], or one for each row [rows, k]; ranks [rows, columns]."""
    if tables.ndim == 1:
        return tables.index_select(0, ranks.reshape(-1).int()).view(ranks.shape)
    return tables.gather(1, ranks.long())
