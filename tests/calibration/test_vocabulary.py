"""What errors in a head and in an embedding cost, compared with what defines it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import isotone
from isotone.calibration.arrays import load_array
from isotone.calibration.predictions import Predictions
from isotone.calibration.statistics import Statistics, text_file
from isotone.models.language_model.files import open_files
from isotone.models.language_model.load import load_model
from tests.builders import language_model
from tests.builders.calibrated_models import WIDE


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("bound", [None, 3.0])
def test_information_is_the_mean_squared_gradient_over_all_predictions(bound, first):
    torch.manual_seed(0)
    outputs = (2 * torch.randn(1, 80, 7)).requires_grad_()
    logits = outputs if bound is None else bound * torch.tanh(outputs / bound)
    shares = torch.softmax(logits, -1).detach()[0]
    expected = torch.zeros(80, 7)
    for token in range(7):
        loss = torch.nn.functional.cross_entropy(
            logits[0], torch.full((80,), token), reduction="sum"
        )
        (gradient,) = torch.autograd.grad(loss, outputs, retain_graph=True)
        expected += shares[:, token, None] * gradient[0] ** 2
    found = Predictions(7)
    found.add(outputs, logits, first)
    assert found.n_positions == 80 - first
    torch.testing.assert_close(found.information.float(), expected[first:].sum(0))
    torch.testing.assert_close(found.frequency.float(), shares[first:].sum(0))


def run(dense, statistics):
    """Final hidden states and probabilities of all windows, and the windows."""
    model = load_model(open_files(dense))
    windows = torch.tensor(np.array(load_array(text_file(statistics))))
    with torch.no_grad():
        states = model.model(input_ids=windows).last_hidden_state
        shares = torch.softmax(model.lm_head(states), -1)
    return states.numpy(), shares.reshape(-1, shares.shape[-1]).double().numpy()


def kept(windows):
    return np.concatenate([x for i, x in enumerate(windows) if i % 4 != 3])


def test_an_untied_model_has_both_by_their_own_rules(dense, statistics):
    states, shares = run(dense, statistics)
    opened = Statistics.open(statistics)
    head = opened.sensitivity("lm_head.weight", 0, 320)
    inputs = kept(states)
    np.testing.assert_allclose(head.inputs, inputs.T @ inputs / len(inputs), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(head.outputs, (shares * (1 - shares)).mean(0), rtol=1e-4)
    embedding = opened.sensitivity("model.embed_tokens.weight", 0, 320)
    np.testing.assert_allclose(embedding.outputs, shares.mean(0), rtol=1e-4)
    assert (embedding.outputs > 0).all(), "tokens that the text lacks count too"
    assert np.linalg.eigvalsh(embedding.inputs.astype(np.float64)).min() > -1e-6
    assert embedding.n_tokens > 0


def test_a_tied_matrix_costs_the_sum(tmp_path, text):
    costs = {}
    for tied in (False, True):
        dense = language_model.write_language_model(
            tmp_path / f"dense{tied}", tie_word_embeddings=tied, **WIDE
        )
        if not tied:  # the same function, nearly, with two matrices
            model = load_model(open_files(dense))
            with torch.no_grad():
                model.lm_head.weight.copy_(model.model.embed_tokens.weight + 1e-5)
            model.save_pretrained(dense)
        isotone.calibrate(dense, tmp_path / f"statistics{tied}", text=text)
        costs[tied] = Statistics.open(tmp_path / f"statistics{tied}")
    errors = np.random.default_rng(0).standard_normal((320, 64)).astype(np.float32)
    head, embedding = (
        costs[False].sensitivity(name, 0, 320).expected_loss(errors)
        for name in ("lm_head.weight", "model.embed_tokens.weight")
    )
    both = costs[True].sensitivity("model.embed_tokens.weight", 0, 320).expected_loss(errors)
    assert both == pytest.approx(head + embedding, rel=0.1)


@pytest.mark.parametrize("tied", [False, True])
def test_whole_models_are_closer_at_equal_bytes(tmp_path, text, tied):
    dense = language_model.write_language_model(
        tmp_path / "dense", tie_word_embeddings=tied, **WIDE
    )
    reference = load_model(open_files(dense))
    tokens = open_files(dense).tokenizer(language_model.text(400, seed=9))["input_ids"]
    windows = torch.tensor(tokens[: 8 * 64]).view(8, 64)
    found = {}
    for name, options in (("plain", {}), ("calibrated", {"calibrate": text})):
        out = tmp_path / name
        summary = isotone.compress(dense, out, bits=4.0, **options)
        assert summary.bits_per_weight == pytest.approx(4.0, rel=0.03)
        with torch.no_grad():
            true = reference(windows).logits.log_softmax(-1)
            changed = load_model(open_files(out))(windows).logits.log_softmax(-1)
        found[name] = float((true.exp() * (true - changed)).sum(-1).mean())
    assert found["calibrated"] < found["plain"]
