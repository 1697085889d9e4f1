"""A model under study: what its records say, against other ways to measure it."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from isotone.checkpoint.opening import open_compressed
from isotone.errors import InputError
from isotone.evaluation.run import evaluate
from isotone.evaluation.scoring import compare
from isotone.models.language_model.files import open_files
from isotone.models.language_model.load import load_model
from isotone.models.swap import hold_ranks, swapped
from isotone.study.matrices import StudiedMatrix, edit_matrices
from isotone.study.passes import Passes
from isotone.study.protocols import MatrixPlace
from isotone.study.studied_model import StudiedModel
from tests.builders.studies import records


def test_the_unedited_model_is_what_evaluate_says(studied, language_models):
    for k in (5, 8):
        own = studied / "clusterings" / f"k{k}"
        expected = evaluate(own, language_models.text, context=24, windows=3)
        (record,) = (r for r in records(studied).values() if r["k"] == k and not r["run"])
        assert record["perplexity"] == record["unedited_perplexity"] == expected.perplexity
        assert (record["kl"], record["top1_agreement"], record["n_tokens"]) == (0.0, 1.0, 3 * 23)
        assert record["drift"]["growth"] == record["drift"]["cosine"] == pytest.approx([1.0, 1.0])


def test_records_are_what_a_swap_and_a_comparison_say(studied, studied_model):
    _, runs, inputs = studied_model
    kept = records(studied)
    directory = studied / "clusterings" / "k8"
    files = open_files(directory)
    model, reference = load_model(files), load_model(files)
    held = hold_ranks(model)

    tensors = {name: weight.clustered_tensor() for name, weight in held.items()}
    matrices = {
        name: StudiedMatrix.of(name, MatrixPlace.of(name), tensor)
        for name, tensor in tensors.items()
        if MatrixPlace.of(name)
    }
    for run in runs[:: len(runs) // 6]:
        record = kept[json.dumps([8, asdict(run)], sort_keys=True)]
        edited = edit_matrices(run, matrices)
        with swapped(model, {one.matrix.name: one.stored for one in edited}) as names:
            tokens = compare(model, reference, inputs.windows)
            assert record["n_matrices"] == len(names)
            pairs = [
                (model.get_parameter(n).detach(), reference.get_parameter(n).detach())
                for n in names
            ]
            squares = sum(float((old.double() ** 2).sum()) for _, old in pairs)
            errors = sum(float(((new - old).double() ** 2).sum()) for new, old in pairs)
        assert record["loss"] == pytest.approx(tokens.loss.mean(), rel=1e-6)
        assert record["kl"] == pytest.approx(tokens.divergence.mean(), rel=1e-5, abs=1e-9)
        assert record["top1_agreement"] == tokens.same_top.mean()
        exact = sum(len(tensors[name].protected_index) for name in names)
        if not exact:  # those squares are not of what a codebook gives
            assert record["relative_error"] == pytest.approx(np.sqrt(errors / squares), rel=1e-4)


def test_held_ranks_change_nothing(language_models):
    model = AutoModelForCausalLM.from_pretrained(
        language_models.clustered, dtype=torch.float32
    ).eval()
    name = "model.layers.1.mlp.up_proj.weight"

    def edited():
        with swapped(model, {name: lambda tensor: tensor.codebook[::-1].copy()}):
            return model.get_parameter(name).clone()

    read, held = edited(), hold_ranks(model)
    codebook = held[name].codebook.clone()
    assert torch.equal(edited(), read)
    assert torch.equal(held[name].codebook, codebook)
    with pytest.raises(InputError, match="expected"), swapped(model, {name: np.ones(3)}):
        pass
    assert torch.equal(held[name].codebook, codebook)


def test_a_model_with_other_layers_than_its_names_say_is_refused(monkeypatch, studied_model):
    its, _, inputs = studied_model
    clustering = open_compressed(its._files.directory)
    monkeypatch.setattr(Passes, "n_layers", property(lambda _: 1))
    with pytest.raises(InputError, match="runs through 1 layers"):
        StudiedModel(clustering, 8, inputs.windows, inputs.provenance)
