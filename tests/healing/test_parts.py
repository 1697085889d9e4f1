"""The pieces of healing: coordinates, order, loss, windows, text that a model writes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import OPTConfig, OPTForCausalLM

from isotone.errors import InputError
from isotone.healing.checkpointing import checkpoint_layers
from isotone.healing.coordinates import Ascending, Factor, Free, Gain
from isotone.healing.loss import cross_entropy, divergence
from isotone.healing.order import n_crossed, strictly_ascending
from isotone.healing.settings import Settings
from isotone.healing.text import MOST_HELD_OUT, split
from isotone.models.sampling import sample_text
from tests.builders import language_model

CODEBOOK = torch.tensor([[-0.5, -0.02, 0.0, 0.01, 2.0], [1e-6, 2e-6, 4e-6, 5e-6, 1e-5]])
COUNTS = torch.tensor([[1, 400, 300, 500, 2], [10, 10, 10, 10, 10]])

moves = st.lists(st.floats(-3, 3), min_size=13, max_size=13)


def place(kind, values):
    coordinates = kind(CODEBOOK, COUNTS)
    begun = coordinates.right_inverse(CODEBOOK)
    return coordinates, torch.tensor(values[: begun.numel()]).view(begun.shape)


@given(moves)
def test_whatever_is_learnt_the_order_stays(values):
    coordinates, at = place(Ascending, values)
    assert n_crossed(coordinates(at).numpy()) == 0


@pytest.mark.parametrize("kind", [Ascending, Free])
def test_nothing_learnt_is_the_codebook_bit_for_bit(kind):
    coordinates = kind(CODEBOOK, COUNTS)
    assert torch.equal(coordinates(coordinates.right_inverse(CODEBOOK)), CODEBOOK)


@pytest.mark.parametrize("kind", [Ascending, Free])
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
    for kind in (Ascending, Free):
        coordinates, at = place(kind, values)
        larger = kind(1024 * CODEBOOK, COUNTS)
        torch.testing.assert_close(larger(at), 1024 * coordinates(at), rtol=1e-6, atol=0.0)


@given(moves)
def test_gaps_change_neither_mean_nor_spread_of_the_weights(values):
    coordinates, at = place(Ascending, values)
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
    coordinates = Ascending(CODEBOOK[:1].double(), COUNTS[:1])
    at = torch.tensor([values[:6]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(coordinates, at, atol=1e-5, rtol=1e-3)


def test_gradients_of_factors_pass_their_rounding_by():
    origin = torch.tensor([0.3, 2.0, 5.0])
    at = torch.tensor([0.1, -0.2, 0.0], requires_grad=True)
    Factor(origin)(at).sum().backward()
    torch.testing.assert_close(at.grad, origin * at.detach().exp())


def test_factors_and_norms_are_what_their_files_can_hold():
    factors = Factor(torch.tensor([1e-9, 0.3, 70000.0]))(torch.tensor([0.0, 0.1, 9.0]))
    assert torch.equal(factors, factors.half().float())
    assert bool((factors > 0).all() & torch.isfinite(factors).all())
    gain = Gain(torch.tensor([1.0, 0.5]), torch.bfloat16, torch.float32)
    value = gain(torch.tensor([0.01234, -0.2]))
    assert torch.equal(value, value.bfloat16().float())
    at = torch.zeros(2, requires_grad=True)
    gain(at).sum().backward()
    assert torch.equal(at.grad, gain.size.expand(2))


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9))
def test_the_nearest_ascending_codebook(values):
    """Against the definition: the mean of a run, smallest over ends after, largest over starts."""
    codebook = np.array(values, np.float32)
    ascending = strictly_ascending(codebook)
    assert n_crossed(ascending) == 0
    n = len(values)
    means = [
        max(min(np.mean(values[i : j + 1]) for j in range(k, n)) for i in range(k + 1))
        for k in range(n)
    ]
    np.testing.assert_allclose(ascending, means, atol=1e-5)
    if n_crossed(codebook) == 0:
        assert np.array_equal(ascending, codebook)


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


def test_each_window_comes_once_in_each_round_and_in_another_order():
    text = split(np.arange(235), 10, "text")
    assert text.training.shape == (21, 10)
    assert text.held_out.tolist() == [list(range(210, 220)), list(range(220, 230))]
    batches = [text.batch(step, 3, seed=5) for step in range(14)]
    first, second = np.concatenate(batches[:7]), np.concatenate(batches[7:])
    assert not np.array_equal(first, second)
    for order in (first, second):
        assert np.array_equal(order[order[:, 0].argsort()], text.training)
    assert np.array_equal(batches[4], text.batch(4, 3, seed=5))
    assert not np.array_equal(first, np.concatenate([text.batch(s, 3, 6) for s in range(7)]))


def test_no_more_is_held_out_than_is_good():
    assert len(split(np.arange(10_000), 10, "text").held_out) == MOST_HELD_OUT
    other = np.zeros((3, 10), np.int64)
    with_other = split(np.arange(100), 10, "text", other)
    assert with_other.held_out is other
    assert len(with_other.training) == 10
    with pytest.raises(InputError, match=r"has 19 tokens; expected 20 or more"):
        split(np.arange(19), 10, "text")


def test_the_learning_rate_rises_and_falls():
    rates = [Settings(steps=40).rate(step) for step in range(40)]
    assert rates[:2] == [0.5, 1.0]
    assert rates.index(max(rates)) in (1, 2)
    assert 0 < rates[-1] < 0.03
    assert all(later < earlier for earlier, later in pairwise(rates[2:]))
    assert Settings(steps=1).rate(0) == 1.0


def test_a_model_writes_the_same_text_for_the_same_seed():
    model, tokenizer = language_model.model(), language_model.tokenizer()
    state = torch.random.get_rng_state()
    first = sample_text(model, tokenizer, 70, 12, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.shape == (70, 12)
    assert first.dtype == np.int64
    assert np.array_equal(first, sample_text(model, tokenizer, 70, 12, seed=3))
    assert not np.array_equal(first, sample_text(model, tokenizer, 70, 12, seed=4))
    assert not np.isin(first[:, 0], tokenizer.all_special_ids).any()
    assert len(np.unique(first[:, 0])) > 40


def test_a_narrow_model_writes_as_a_wide_one_of_its_values_and_stays_what_it_is():
    narrow, tokenizer = language_model.model().bfloat16(), language_model.tokenizer()
    before = [tensor.clone() for tensor in narrow.state_dict().values()]
    wide = language_model.model().bfloat16().float()
    written, expected = (sample_text(model, tokenizer, 4, 12, seed=3) for model in (narrow, wide))
    assert np.array_equal(written, expected)
    for one, other in zip(before, narrow.state_dict().values(), strict=True):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype


def test_what_a_model_writes_is_likelier_than_chance():
    model, tokenizer = language_model.model(), language_model.tokenizer()
    written = torch.from_numpy(sample_text(model, tokenizer, 16, 32, seed=1))
    others = torch.randint(0, 290, (16, 32), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        loss = [float(cross_entropy(model(tokens).logits, tokens)) for tokens in (written, others)]
    assert loss[0] < loss[1] - 1


def opt():
    """Its layers themselves drop out in training."""
    shape = {"hidden_size": 32, "ffn_dim": 64, "num_attention_heads": 2, "word_embed_proj_dim": 32}
    torch.manual_seed(0)
    return OPTForCausalLM(OPTConfig(vocab_size=320, num_hidden_layers=2, dropout=0.5, **shape))


@pytest.mark.parametrize("make", [lambda: language_model.model(attention_dropout=0.5), opt])
def test_checkpointed_layers_give_the_same_gradient_without_dropout(make):
    tokens = torch.arange(12).view(1, 12)
    gradients = []
    for checkpointed in (False, True):
        model, calls = make().eval(), []
        if checkpointed:
            checkpoint_layers(model)
        attention = next(m for n, m in model.named_modules() if n.endswith("self_attn"))
        attention.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        cross_entropy(model(tokens).logits, tokens).backward()
        assert len(calls) == 1 + checkpointed
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_the_models_own_settings_do_not_bend_what_it_writes():
    model, tokenizer = language_model.model(), language_model.tokenizer()
    expected = sample_text(model, tokenizer, 4, 12, seed=3)
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.eos_token_id = list(range(300))
    assert np.array_equal(sample_text(model, tokenizer, 4, 12, seed=3), expected)
    assert model.generation_config.repetition_penalty == 5.0
