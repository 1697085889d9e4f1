"""Coordinates in which one learning rate suits every matrix of every model.

Centroids differ by orders of magnitude between matrices, and within one. So what is trained is not
a codebook but numbers around zero that say how it differs from where it began: in the logarithms of
its gaps for its shape, and in standard deviations of the weights for where it lies. An order that
must be kept is kept because nothing else can be said. torch's parametrizations put the numbers in
the place of the parameter, and any optimiser works on them.

Tried on SmolLM2 at K = 16 and not taken: free centroids, which after 100 steps had come less far
than gaps after 40; gaps that also change the scale of the whole, which diverged at the rate that is
the default now; full-matrix preconditioning of each codebook, no better than Adam.
"""

from __future__ import annotations

import torch
from torch import nn

_RANKS = 12.0
"""Ranks in use for which the rates below are: at K = 16 there are about so many."""

_AFFINE = 0.2
"""How fast a codebook's shift and growth move, beside its gaps."""

_SMALLEST_HALF = 2.0**-24

_FREE = 0.4
"""How fast centroids move that no order holds, in standard deviations, beside those gaps."""


class Ascending(nn.Module):  # type: ignore[misc]
    """A codebook as an affine map, and the logarithm of each gap's growth.

    Coordinates [..., k + 1]: a shift of the whole and the logarithm of its growth, then one for
    each gap. Any coordinates give an ascending codebook (to the precision of float32, in which two
    may meet; order.py parts them); all 0 give the one that was. Gaps change neither mean nor
    standard deviation of the weights, which are for the first two alone: it is drift of scale that
    ruins a model when all of its matrices move at once (arXiv 2603.17917), so these two move at a
    fraction of the rate.

    The finer a codebook, the less there is to bring back, and the less its noise may cost. With r
    ranks in use errors fall as 1/r; a shift costs what it is, and n gaps that err independently
    cost a root of n gaps. So that noise stays in proportion to the error, coordinates count for
    less in fine codebooks: shift and growth by 1/r, gaps by a root of 1/r.

    gradient: None, or [..., k] float32, to which the codebook's own gradient is added.
    """

    origin: torch.Tensor
    share: torch.Tensor
    rounding: torch.Tensor

    def __init__(self, codebook: torch.Tensor, counts: torch.Tensor) -> None:
        """codebook: [..., k], ascending. counts: [..., k], weights of each rank."""
        super().__init__()
        self.dtype = codebook.dtype
        self.gradient: torch.Tensor | None = None
        share = counts.double() / counts.double().sum(-1, keepdim=True)
        mean, spread = _moments(codebook.double(), share)
        self.register_buffer("origin", codebook.double())
        self.register_buffer("share", share)
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)
        fineness = (_RANKS / _ranks_in_use(share)).clamp(max=1.0)
        self.register_buffer("affine", _AFFINE * fineness)
        self.register_buffer("pace", fineness.sqrt())
        # Rounding would make 3e-17 of a centroid that is 0: whatever it does is taken off again.
        self.register_buffer("rounding", self._map(self.right_inverse(codebook)) - self.origin)

    def forward(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Coordinates [..., k + 1] to the codebook [..., k]."""
        codebook = (self._map(coordinates) - self.rounding).to(self.dtype)
        if self.gradient is not None and codebook.requires_grad:
            codebook.register_hook(self._follow)
        return codebook

    def _map(self, coordinates: torch.Tensor) -> torch.Tensor:
        shift, growth, gaps = coordinates.double().split([1, 1, coordinates.shape[-1] - 2], dim=-1)
        widths = self.origin.diff(dim=-1) * (self.pace * gaps).exp()
        raised = torch.cat([torch.zeros_like(shift), widths.cumsum(-1)], dim=-1)
        mean, spread = _moments(raised, self.share)
        stretched = (raised - mean) * (self.spread / spread * (self.affine * growth).exp())
        return self.mean + self.spread * self.affine * shift + stretched

    def right_inverse(self, codebook: torch.Tensor) -> torch.Tensor:
        """The coordinates of the codebook that this was made for."""
        return codebook.new_zeros(*codebook.shape[:-1], codebook.shape[-1] + 1)

    def _follow(self, gradient: torch.Tensor) -> None:
        assert self.gradient is not None
        self.gradient += gradient


class Free(nn.Module):  # type: ignore[misc]
    """A codebook as the shift of each centroid, in what a gap comes to: a part of the spread.

    Nothing keeps the order: the ablation beside Ascending.
    """

    origin: torch.Tensor

    def __init__(self, codebook: torch.Tensor, counts: torch.Tensor) -> None:
        """As Ascending; counts may be shares."""
        super().__init__()
        share = counts.double() / counts.double().sum(-1, keepdim=True)
        spread = _moments(codebook.double(), share)[1]
        self.register_buffer("origin", codebook.clone())
        self.register_buffer("unit", (_FREE * spread * _RANKS / _ranks_in_use(share)).float())

    @classmethod
    def beside(cls, kept: Ascending) -> Free:
        """Free coordinates of the same codebook."""
        return cls(kept.origin.float(), kept.share)

    def forward(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Coordinates to the codebook, both [..., k] float32."""
        return self.origin + coordinates * self.unit

    def right_inverse(self, codebook: torch.Tensor) -> torch.Tensor:
        """The coordinates of a codebook."""
        return (codebook - self.origin) / self.unit


class Factor(nn.Module):  # type: ignore[misc]
    """Positive factors of rows or columns, as the logarithm of their growth."""

    origin: torch.Tensor

    def __init__(self, factors: torch.Tensor) -> None:
        """factors: any shape, float32."""
        super().__init__()
        self.register_buffer("origin", factors.clone())

    def forward(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Coordinates to factors of the same shape, as half precision has them."""
        factors = self.origin * coordinates.exp()
        largest = torch.finfo(torch.float16).max
        return _rounded(factors.clamp(_SMALLEST_HALF, largest), torch.float16)

    def right_inverse(self, factors: torch.Tensor) -> torch.Tensor:
        """The coordinates of the factors that this was made for."""
        return torch.zeros_like(factors)


class Gain(nn.Module):  # type: ignore[misc]
    """A norm's weight or bias as its shift, in units of its root mean square."""

    origin: torch.Tensor

    def __init__(self, weight: torch.Tensor, stored: torch.dtype, dtype: torch.dtype) -> None:
        """weight: any shape, float32. stored: the dtype of its file. dtype: of what it gives."""
        super().__init__()
        self.stored, self.dtype = stored, dtype
        size = weight.detach().square().mean().sqrt()
        self.register_buffer("origin", weight.detach().clone())
        self.register_buffer("size", torch.where(size > 0, size, torch.ones_like(size)))

    def forward(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Coordinates (float32) to the weight, with values that its file can hold."""
        weight = self.origin + coordinates * self.size
        return _rounded(weight, self.stored).to(self.dtype)

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """The coordinates of the weight that this was made for."""
        return torch.zeros_like(weight)


def _rounded(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """To the nearest values of a dtype; the gradient is that of the values themselves."""
    return values + (values.to(dtype).to(values.dtype) - values).detach()


def _ranks_in_use(share: torch.Tensor) -> torch.Tensor:
    """Two to the entropy of the ranks, [..., 1]: as many equally frequent ones would have it."""
    return torch.special.entr(share).sum(-1, keepdim=True).exp()


def _moments(codebook: torch.Tensor, share: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation over the weights, [..., 1].

    Where that is 0, all weights having one rank, the range takes its place, or the size, or 1.
    """
    mean = (codebook * share).sum(-1, keepdim=True)
    variance = ((codebook - mean).square() * share).sum(-1, keepdim=True)
    widest = (codebook[..., -1:] - codebook[..., :1]).square()
    for other in (widest, codebook[..., :1].square(), torch.ones_like(mean)):
        variance = torch.where(variance > 0, variance, other)
    return mean, variance.sqrt()
