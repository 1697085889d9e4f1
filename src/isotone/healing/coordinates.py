"""Coordinates in which one learning rate suits every matrix of every model.

Centroids differ by orders of magnitude between matrices, and within one. So what is trained is not
a codebook but numbers around zero that say how it differs from where it began: in the logarithms of
its spacings (the differences of neighbouring centroids) for its shape, and in standard deviations
of the weights for its position. An order that must be kept is kept because no coordinates can
express another one.

Each class is a parametrization of torch, which puts the coordinates in the place of a parameter:
`forward` gives the parameter of coordinates, `right_inverse` the coordinates of the parameter.

Tried on SmolLM2 at K = 16 and rejected: free centroids, which after 100 steps had regained
less than spacings after 40; spacings that also change the scale of the codebook, which diverged at
the rate that is the default now; full-matrix preconditioning of each codebook, no better than Adam.
"""

from __future__ import annotations

import torch
from torch import nn

_RANKS = 12.0
"""The number of ranks in use for which the rates below are: at K = 16 it is about this."""

_AFFINE = 0.2
"""The rate of a codebook's shift and growth, relative to that of its spacings."""

_FREE = 0.4
"""The rate of centroids without an order, in standard deviations, relative to the same."""

_SMALLEST_HALF = 2.0**-24
"""The smallest positive number of float16."""


class AscendingCoordinates(nn.Module):  # type: ignore[misc]
    """A codebook as an affine map, and the logarithm of the growth of each spacing.

    The coordinates are `[..., k + 1]`: the shift of the whole, the logarithm of its growth, and
    then one for each spacing. Any coordinates give an ascending codebook, to the precision of
    float32, in which two centroids may meet (`order.nearest_ascending` separates them). All 0 give
    the codebook that was.

    Parameters
    ----------
    codebook : float32 tensor, `[..., k]`
        The ascending codebook to begin with.
    counts : int64 or float tensor, `[..., k]`
        The number of weights of each rank.

    Attributes
    ----------
    gradient : float32 tensor, `[..., k]`, optional
        Where a tensor is put here, the gradient of the codebook itself is added to it.

    Notes
    -----
    Spacings change neither the mean nor the standard deviation of the weights; only shift and
    growth do. A drift of scale ruins a model when all of its matrices move at once
    (arXiv 2603.17917), so these two move at a fraction of the rate.

    The finer a codebook is, the less there is to regain, and the less its noise may cost. With r
    ranks in use errors fall as 1/r. A shift costs as much as it moves; n spacings that err
    independently cost the root of n of them. To keep noise in proportion to the error, coordinates
    count for less in fine codebooks: shift and growth by 1/r, spacings by the root of 1/r.
    """

    origin: torch.Tensor
    share: torch.Tensor
    rounding: torch.Tensor

    def __init__(self, codebook: torch.Tensor, counts: torch.Tensor) -> None:
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
        # Rounding would turn a centroid of 0 into 3e-17, so its effect at the start is subtracted.
        self.register_buffer("rounding", self._map(self.right_inverse(codebook)) - self.origin)

    def forward(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Return the codebook of coordinates.

        Parameters
        ----------
        coordinates : float tensor, `[..., k + 1]`
            The numbers that are trained.

        Returns
        -------
        float32 tensor, `[..., k]`
            The codebook.
        """
        codebook = (self._map(coordinates) - self.rounding).to(self.dtype)
        if self.gradient is not None and codebook.requires_grad:
            codebook.register_hook(self._follow)
        return codebook

    def _map(self, coordinates: torch.Tensor) -> torch.Tensor:
        shift, growth, spacings = coordinates.double().split(
            [1, 1, coordinates.shape[-1] - 2], dim=-1
        )
        widths = self.origin.diff(dim=-1) * (self.pace * spacings).exp()
        raised = torch.cat([torch.zeros_like(shift), widths.cumsum(-1)], dim=-1)
        mean, spread = _moments(raised, self.share)
        stretched = (raised - mean) * (self.spread / spread * (self.affine * growth).exp())
        return self.mean + self.spread * self.affine * shift + stretched

    def right_inverse(self, codebook: torch.Tensor) -> torch.Tensor:
        return codebook.new_zeros(*codebook.shape[:-1], codebook.shape[-1] + 1)

    def _follow(self, gradient: torch.Tensor) -> None:
        assert self.gradient is not None
        self.gradient += gradient


class FreeCoordinates(nn.Module):  # type: ignore[misc]
    """A codebook as the shift of each centroid, in units of about one spacing.

    The unit is a fraction of the spread of the weights.

    Nothing keeps the order. This is the ablation beside AscendingCoordinates.

    Parameters
    ----------
    codebook : float32 tensor, `[..., k]`
        The codebook to begin with.
    counts : int64 or float tensor, `[..., k]`
        The number of weights of each rank, or its share.
    """

    origin: torch.Tensor

    def __init__(self, codebook: torch.Tensor, counts: torch.Tensor) -> None:
        super().__init__()
        share = counts.double() / counts.double().sum(-1, keepdim=True)
        spread = _moments(codebook.double(), share)[1]
        self.register_buffer("origin", codebook.clone())
        self.register_buffer("unit", (_FREE * spread * _RANKS / _ranks_in_use(share)).float())

    @classmethod
    def beside(cls, kept: AscendingCoordinates) -> FreeCoordinates:
        """Return free coordinates of the codebook that others began with.

        Parameters
        ----------
        kept : AscendingCoordinates
            The coordinates that keep the order.

        Returns
        -------
        FreeCoordinates
            Coordinates of the same codebook.
        """
        return cls(kept.origin.float(), kept.share)

    def forward(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Return the codebook of coordinates.

        Parameters
        ----------
        coordinates : float tensor, `[..., k]`
            The numbers that are trained.

        Returns
        -------
        float32 tensor, `[..., k]`
            The codebook.
        """
        return self.origin + coordinates * self.unit

    def right_inverse(self, codebook: torch.Tensor) -> torch.Tensor:
        """Return the coordinates of a codebook.

        Parameters
        ----------
        codebook : float32 tensor, `[..., k]`
            Any codebook.

        Returns
        -------
        float32 tensor, `[..., k]`
            The coordinates that give it.
        """
        return (codebook - self.origin) / self.unit


class ScaleCoordinates(nn.Module):  # type: ignore[misc]
    """Positive scales of rows or columns, as the logarithm of their growth.

    Parameters
    ----------
    scales : float32 tensor
        The scales to begin with, in any shape.
    """

    origin: torch.Tensor

    def __init__(self, scales: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("origin", scales.clone())

    def forward(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Return the scales of coordinates, with values that float16 can hold.

        Parameters
        ----------
        coordinates : float tensor, `[...]`
            The numbers that are trained.

        Returns
        -------
        float32 tensor, `[...]`
            The scales.
        """
        scales = self.origin * coordinates.exp()
        largest = torch.finfo(torch.float16).max
        return _rounded(scales.clamp(_SMALLEST_HALF, largest), torch.float16)

    def right_inverse(self, scales: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(scales)


class NormCoordinates(nn.Module):  # type: ignore[misc]
    """A norm's weight or bias as its shift, in units of its root mean square.

    Parameters
    ----------
    weight : float32 tensor
        The weight or bias to begin with, in any shape.
    stored : torch.dtype
        The dtype that its file has.
    dtype : torch.dtype
        The dtype that the model has it in.
    """

    origin: torch.Tensor

    def __init__(self, weight: torch.Tensor, stored: torch.dtype, dtype: torch.dtype) -> None:
        super().__init__()
        self.stored, self.dtype = stored, dtype
        size = weight.detach().square().mean().sqrt()
        self.register_buffer("origin", weight.detach().clone())
        self.register_buffer("size", torch.where(size > 0, size, torch.ones_like(size)))

    def forward(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Return the weight of coordinates, with values that its file can hold.

        Parameters
        ----------
        coordinates : float tensor, `[...]`
            The numbers that are trained.

        Returns
        -------
        float tensor, `[...]`
            The weight, in the dtype of the model.
        """
        weight = self.origin + coordinates * self.size
        return _rounded(weight, self.stored).to(self.dtype)

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(weight)


def _rounded(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Round to a dtype's nearest values; the gradient passes as if nothing were rounded."""
    return values + (values.to(dtype).to(values.dtype) - values).detach()


def _ranks_in_use(share: torch.Tensor) -> torch.Tensor:
    """Return exp(entropy of the ranks), [..., 1]: as many equally frequent ranks have it."""
    return torch.special.entr(share).sum(-1, keepdim=True).exp()


def _moments(codebook: torch.Tensor, share: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation over the weights, [..., 1].

    Where all weights have one rank the deviation is 0; the range of the codebook takes its place,
    or where that is 0 too the size of the centroid, or 1.
    """
    mean = (codebook * share).sum(-1, keepdim=True)
    variance = ((codebook - mean).square() * share).sum(-1, keepdim=True)
    widest = (codebook[..., -1:] - codebook[..., :1]).square()
    for other in (widest, codebook[..., :1].square(), torch.ones_like(mean)):
        variance = torch.where(variance > 0, variance, other)
    return mean, variance.sqrt()
