"""Losses and divergences of tokens: those of the definition, whatever the batches and slices."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from isotone.errors import InputError
from isotone.evaluation import losses
from isotone.evaluation.metrics import divergence
from isotone.evaluation.scoring import batch_size, compare, score
from isotone.models.text import cut_windows, encode
from tests.builders import language_model

CONTEXT = 32
N_WINDOWS = 5

# Losses are about 6 nats; float32 keeps 7 digits, and sums over a vocabulary of 320 lose one.
LOSS_TOLERANCE = 1e-5
# Sums of probabilities, which are at most one.
DIVERGENCE_TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def windows():
    tokens = encode(language_model.tokenizer(), language_model.text())
    return cut_windows(tokens, CONTEXT, N_WINDOWS, "text")


@pytest.fixture(scope="module")
def model():
    return language_model.model(seed=0)


@pytest.fixture(scope="module")
def reference():
    return language_model.model(seed=1)


@pytest.fixture(scope="module")
def comparison(model, reference, windows):
    return compare(model, reference, windows)


def log_probabilities(model, windows):
    """One row [V] for each scored token, in float64: the definition, a window at a time."""
    with torch.no_grad():
        logits = [model(torch.tensor(window)[None]).logits[0, :-1].double() for window in windows]
    return torch.log_softmax(torch.cat(logits), -1).numpy()


def test_losses_are_those_of_the_definition(model, windows):
    rows = log_probabilities(model, windows)
    expected = -rows[np.arange(len(rows)), windows[:, 1:].flatten()]
    assert np.abs(score(model, windows) - expected).max() < LOSS_TOLERANCE


@pytest.mark.parametrize("n_prefix", [0, 1, 2, 5])
def test_no_token_of_a_prefix_is_scored(model, reference, windows, comparison, n_prefix):
    n_dropped = max(1, n_prefix) - 1
    kept = comparison.loss.reshape(N_WINDOWS, -1)[:, n_dropped:].flatten()
    losses = score(model, windows, n_prefix=n_prefix)
    assert len(losses) == N_WINDOWS * (CONTEXT - max(1, n_prefix))
    assert np.abs(losses - kept).max() < LOSS_TOLERANCE
    found = compare(model, reference, windows, n_prefix=n_prefix)
    for name, values in vars(comparison).items():
        kept = values.reshape(N_WINDOWS, -1)[:, n_dropped:].flatten()
        assert np.abs(getattr(found, name) * 1.0 - kept * 1.0).max() < LOSS_TOLERANCE, name


@pytest.mark.parametrize("batch", [1, 2, 3, N_WINDOWS, 100])
def test_batches_change_nothing(model, reference, windows, comparison, batch):
    one_by_one = np.concatenate([score(model, window[None]) for window in windows])
    assert np.abs(score(model, windows, batch=batch) - one_by_one).max() < LOSS_TOLERANCE
    batched = compare(model, reference, windows, batch=batch)
    assert np.abs(batched.loss - one_by_one).max() < LOSS_TOLERANCE
    assert np.abs(batched.divergence - comparison.divergence).max() < DIVERGENCE_TOLERANCE


@pytest.mark.parametrize("n_rows", [1, 7, CONTEXT - 1, 1000])
def test_slices_change_nothing(model, reference, windows, comparison, n_rows, monkeypatch):
    monkeypatch.setattr(losses, "_SLICE_BYTES", n_rows * 4 * model.config.vocab_size)
    sliced = compare(model, reference, windows)
    assert np.abs(sliced.loss - comparison.loss).max() < LOSS_TOLERANCE
    assert np.abs(sliced.divergence - comparison.divergence).max() < DIVERGENCE_TOLERANCE
    assert np.array_equal(sliced.same_top, comparison.same_top)


def test_divergence_is_that_of_the_definition(model, reference, windows, comparison):
    log_q, log_p = log_probabilities(model, windows), log_probabilities(reference, windows)
    wanted = windows[:, 1:].flatten()
    expected = (np.exp(log_p) * (log_p - log_q)).sum(-1)
    assert np.abs(comparison.divergence - expected).max() < DIVERGENCE_TOLERANCE * expected.max()
    assert np.array_equal(comparison.same_top, log_q.argmax(-1) == log_p.argmax(-1))
    assert np.array_equal(comparison.right, log_q.argmax(-1) == wanted)
    assert np.array_equal(comparison.reference_right, log_p.argmax(-1) == wanted)
    at = np.arange(len(wanted)), wanted
    assert np.abs(comparison.reference_loss + log_p[at]).max() < LOSS_TOLERANCE


def test_a_model_does_not_differ_from_itself(model, windows):
    found = divergence(compare(model, model, windows))
    assert (found.kl.value, found.kl_median, found.kl_99) == (0.0, 0.0, 0.0)
    assert (found.top1_agreement.value, found.flipped.value) == (1.0, 0.0)
    assert (found.perplexity_ratio.value, found.perplexity_ratio.standard_error) == (1.0, 0.0)


@pytest.mark.parametrize("step", [1e-5, 1e-3, 0.1, 1.0])
def test_divergence_is_never_negative(model, windows, step):
    near = language_model.model(seed=0)
    with torch.no_grad():
        for parameter in near.parameters():
            parameter += step * torch.randn(parameter.shape, generator=torch.manual_seed(0))
    assert compare(near, model, windows).divergence.min() > -1e-7  # float32's step below one


def test_comparing_scores_as_scoring_does(model, reference, windows, comparison):
    assert np.abs(comparison.loss - score(model, windows)).max() < LOSS_TOLERANCE
    swapped = compare(reference, model, windows)
    assert np.abs(swapped.reference_loss - comparison.loss).max() < LOSS_TOLERANCE
    assert np.array_equal(swapped.right, comparison.reference_right)


def test_batches_fit_into_half_a_gibibyte():
    small = SimpleNamespace(device=torch.device("cpu"))
    small.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=1 << 10))
    assert batch_size(small, 1 << 10) == 64  # windows of 4 MiB, twice
    assert batch_size(small, 1 << 10, n_models=2) == 32
    assert batch_size(small, 1 << 20) == 1


def test_the_model_is_left_as_it_was(windows):
    training = language_model.model().train()
    score(training, windows[:1])
    assert training.training
    assert not any(parameter.requires_grad is False for parameter in training.parameters())


def test_a_broken_model_is_no_number(windows):
    broken = language_model.model()
    with torch.no_grad():
        broken.lm_head.weight[3] = math.nan
    with pytest.raises(InputError, match="the model gives nan for 155 of 155 tokens"):
        score(broken, windows)


def test_progress_ends_at_its_total(model, windows):
    class Seen:
        total = done = 0

        def begin(self, what, total, unit):
            assert (what, unit) == ("scoring", "tokens")
            self.total = total

        def advance(self, n):
            self.done += n

    seen = Seen()
    score(model, windows, batch=2, progress=seen)
    assert seen.done == seen.total == N_WINDOWS * CONTEXT
