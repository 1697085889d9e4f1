"""Coordinates: they keep the order, know no units, and have the right gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isotone.core.values import is_ascending
from isotone.healing.coordinates import (
    AscendingCoordinates,
    FreeCoordinates,
    NormCoordinates,
    ScaleCoordinates,
)

CODEBOOK = torch.tensor([[-0.5, -0.02, 0.0, 0.01, 2.0], [1e-6, 2e-6, 4e-6, 5e-6, 1e-5]])
COUNTS = torch.tensor([[1, 400, 300, 500, 2], [10, 10, 10, 10, 10]])

moves = st.lists(st.floats(-3, 3), min_size=13, max_size=13)


def place(kind, values):
    coordinates = kind(CODEBOOK, COUNTS)
    begun = coordinates.right_inverse(CODEBOOK)
    return coordinates, torch.tensor(values[: begun.numel()]).view(begun.shape)


@given(moves)
def test_whatever_is_learnt_the_order_stays(values):
    coordinates, at = place(AscendingCoordinates, values)
    assert is_ascending(coordinates(at).numpy())


@pytest.mark.parametrize("kind", [AscendingCoordinates, FreeCoordinates])
def test_nothing_learnt_is_the_codebook_bit_for_bit(kind):
    coordinates = kind(CODEBOOK, COUNTS)
    assert torch.equal(coordinates(coordinates.right_inverse(CODEBOOK)), CODEBOOK)


@pytest.mark.parametrize("kind", [AscendingCoordinates, FreeCoordinates])
def test_a_codebook_of_one_or_of_equal_weights_can_be_trained(kind):
    for codebook, counts in (([3.0], [9]), ([0.0], [9]), ([1.0, 2.0], [5, 0])):
        codebook, counts = torch.tensor(codebook), torch.tensor(counts)
        coordinates = kind(codebook, counts)
        begun = coordinates.right_inverse(codebook)
        assert torch.equal(coordinates(begun), codebook)
        moved = coordinates(begun + 0.1)
        assert torch.isfinite(moved).all()
        assert not torch.equal(moved, codebook)


@given(moves)
def test_coordinates_do_not_know_units(values):
    """A codebook a thousand times as large moves a thousand times as far."""
    for kind in (AscendingCoordinates, FreeCoordinates):
        coordinates, at = place(kind, values)
        larger = kind(1024 * CODEBOOK, COUNTS)
        torch.testing.assert_close(larger(at), 1024 * coordinates(at), rtol=1e-6, atol=0.0)


@given(moves)
def test_spacings_change_neither_mean_nor_spread_of_the_weights(values):
    coordinates, at = place(AscendingCoordinates, values)
    at[..., :2] = 0
    share = COUNTS / COUNTS.sum(-1, keepdim=True)

    def moments(codebook):
        mean = (codebook.double() * share).sum(-1)
        return mean, ((codebook.double() - mean.unsqueeze(-1)).square() * share).sum(-1).sqrt()

    (mean, spread), (mean_after, spread_after) = moments(CODEBOOK), moments(coordinates(at))
    torch.testing.assert_close(spread_after, spread, rtol=1e-5, atol=0.0)
    torch.testing.assert_close(mean_after / spread, mean / spread, rtol=0.0, atol=1e-5)


@given(moves)
def test_gradients_of_coordinates_are_those_of_finite_differences(values):
    coordinates = AscendingCoordinates(CODEBOOK[:1].double(), COUNTS[:1])
    at = torch.tensor([values[:6]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(coordinates, at, atol=1e-5, rtol=1e-3)


def test_gradients_of_scales_pass_their_rounding_by():
    origin = torch.tensor([0.3, 2.0, 5.0])
    at = torch.tensor([0.1, -0.2, 0.0], requires_grad=True)
    ScaleCoordinates(origin)(at).sum().backward()
    torch.testing.assert_close(at.grad, origin * at.detach().exp())


def test_scales_and_norms_are_what_their_files_can_hold():
    scales = ScaleCoordinates(torch.tensor([1e-9, 0.3, 70000.0]))(torch.tensor([0.0, 0.1, 9.0]))
    assert torch.equal(scales, scales.half().float())
    assert bool((scales > 0).all() & torch.isfinite(scales).all())
    norm = NormCoordinates(torch.tensor([1.0, 0.5]), torch.bfloat16, torch.float32)
    value = norm(torch.tensor([0.01234, -0.2]))
    assert torch.equal(value, value.bfloat16().float())
    at = torch.zeros(2, requires_grad=True)
    norm(at).sum().backward()
    assert torch.equal(at.grad, norm.size.expand(2))
