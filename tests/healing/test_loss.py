"""The training losses are torch's, and so are their gradients."""

from __future__ import annotations

import torch
from torch import nn

from isotone.healing.loss import cross_entropy, divergence


def test_the_divergence_is_torchs_and_so_is_its_gradient():
    generator = torch.Generator().manual_seed(1)
    logits = (4 * torch.randn(2, 7, 3001, generator=generator)).requires_grad_()
    expected = 4 * torch.randn(2, 7, 3001, generator=generator)
    plain = nn.functional.kl_div(
        torch.log_softmax(logits, -1).flatten(0, 1),
        torch.log_softmax(expected, -1).flatten(0, 1),
        log_target=True,
        reduction="batchmean",
    )
    (reference,) = torch.autograd.grad(plain, logits)
    loss = divergence(logits, expected.clone())
    (found,) = torch.autograd.grad(3 * loss, logits)
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(found, 3 * reference)


def test_the_divergence_from_itself_is_nothing():
    logits = torch.randn(1, 5, 11, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = divergence(logits, logits.detach().clone())
    (found,) = torch.autograd.grad(loss, logits)
    assert float(loss.detach()) == 0.0
    assert not found.any()


def test_cross_entropy_scores_the_next_token():
    logits = torch.full((1, 3, 4), -30.0)
    tokens = torch.tensor([[2, 1, 3]])
    logits[0, 0, 1] = logits[0, 1, 3] = 30.0
    assert float(cross_entropy(logits, tokens)) < 1e-6
    assert float(cross_entropy(logits, tokens.flip(-1))) > 20
