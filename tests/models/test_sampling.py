"""Text that a model writes: repeatable, likely, and without a trace on the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from isotone.models.sampling import sample_text
from tests.builders import language_model
from tests.builders.seen_tokens import seen_tokens


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
        loss = [
            float(
                cross_entropy(model(tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
            )
            for tokens in (written, others)
        ]
    assert loss[0] < loss[1] - 1


def test_the_models_own_settings_do_not_bend_what_it_writes():
    model, tokenizer = language_model.model(), language_model.tokenizer()
    expected = sample_text(model, tokenizer, 4, 12, seed=3)
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.eos_token_id = list(range(300))
    assert np.array_equal(sample_text(model, tokenizer, 4, 12, seed=3), expected)
    assert model.generation_config.repetition_penalty == 5.0


@pytest.mark.parametrize("prefix", [(290,), (291, 290)], ids=len)
def test_every_sequence_goes_on_from_the_prefix(prefix):
    model, tokenizer = language_model.model(), language_model.tokenizer()
    with seen_tokens() as seen:
        written = sample_text(model, tokenizer, 70, 12, seed=3, prefix=prefix)
    assert written.shape == (70, 12)
    assert (written[:, : len(prefix)] == prefix).all()
    first = written[:, len(prefix)]
    assert not np.isin(first, tokenizer.all_special_ids).any()
    assert len(np.unique(first)) > 40
    assert (seen[0][:, : len(prefix)] == prefix).all(), "the model read something else"
    alone = sample_text(model, tokenizer, 70, 12, seed=3)
    assert np.array_equal(first, alone[:, 0]), "the seed draws another subject"
