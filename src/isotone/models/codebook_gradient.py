"""The gradient of a codebook: a sum over the weights of each rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from isotone.models.packed_ranks import unpack_rows

if TYPE_CHECKING:
    from isotone.models.clustered_weight import ClusteredWeight


class DecodeWithGradient(torch.autograd.Function):  # type: ignore[misc]
    """Decoding, whose gradient is a sum over the weights of each rank.

    Rounding to the stored dtype is taken as the identity. Nothing dense is saved.
    """

    @staticmethod
    def forward(  # the codebook is an argument so that autograd sees it
        ctx: Any, _codebook: torch.Tensor, weight: ClusteredWeight, rows: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.weight, ctx.rows = weight, rows
        return weight.decode(rows)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        weight, rows = ctx.weight, ctx.rows
        if weight.protected is not None:
            gradient = gradient.clone(memory_format=torch.contiguous_format)
            gradient.view(-1)[weight.protected_in(rows)[0]] = 0
        k = weight.codebook.shape[-1]
        sums = torch.zeros(weight.n_matrices * k, dtype=torch.float64, device=weight.device)
        for part, matrix in weight.blocks(rows):
            ids = part if rows is None else rows[part]
            ranks = unpack_rows(weight.index[ids], weight.n_columns, weight.bits).long()
            terms = gradient[part].float()
            for scale in weight.scales(ids, matrix):
                terms = terms * scale
            first = matrix.unsqueeze(-1) if isinstance(matrix, torch.Tensor) else matrix
            slots = (ranks + first * k).reshape(-1)
            sums += torch.bincount(slots, terms.reshape(-1).double(), minlength=len(sums))
        return sums.float().view(weight.codebook.shape), None, None
