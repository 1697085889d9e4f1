"""Edited codebooks of a live model: the documented way gives a study's numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import isotone
import isotone.study
from isotone.errors import InputError
from isotone.evaluation.metrics import perplexity
from isotone.evaluation.scoring import score
from tests.builders.studies import study

PLAN = """
[clustering]
protect = "0.01"
k = 8
[evaluation]
context = 24
windows = 3
[[grid]]
protocol = "together"
layers = [-1]
matrices = ["mlp.*"]
"""
EDITS = {
    "sorted_normal": ({}, {"seed": 3}),
    "permute": ({}, {"correction": "none"}),
    "jittered_gaps": ({"strength": 2.0}, {"at_error": 0.2}),
    "quantile_match": ({"layer": 0}, {}),
}


@pytest.mark.parametrize("residency", ["dense", "packed"])
@pytest.mark.parametrize("edit", EDITS)
def test_the_documented_way_reproduces_a_study(edit, residency, language_models, tmp_path):
    parameters, settings = EDITS[edit]
    table = "".join(f", {key} = {value}" for key, value in parameters.items())
    plan = PLAN + f'edits = [{{edit = "{edit}"{table}}}]\n'
    plan += f'corrections = "{settings.get("correction", "moments")}"\n'
    plan += f"seeds = [{settings.get('seed', 0)}]\n"
    plan += f"at_error = {settings['at_error']}\n" if "at_error" in settings else ""
    study(plan, tmp_path / "results", language_models)
    lines = (tmp_path / "results" / "runs.jsonl").read_text("utf-8").splitlines()
    unedited, record = map(json.loads, lines)

    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "results" / "clusterings" / "k8",
        dtype=torch.float32,
        quantization_config=isotone.IsotoneConfig(residency=residency),
    ).eval()
    codebooks = isotone.study.edited_codebooks(
        model, edit, layers=[-1], matrices="mlp.*", **settings, **parameters
    )
    assert len(codebooks) == record["n_matrices"] == 3
    windows = windows_of(language_models)
    with isotone.swapped(model, codebooks):
        edited = perplexity(score(model, windows))
    assert edited.perplexity.value == record["perplexity"] != unedited["perplexity"]
    assert perplexity(score(model, windows)).perplexity.value == unedited["perplexity"]


def windows_of(models):
    from isotone.models.language_model.files import open_files
    from isotone.models.text import cut_windows, encode, read_text

    files = open_files(models.dense)
    return cut_windows(encode(files.tokenizer, read_text(models.text)), 24, 3, "text")


@pytest.mark.parametrize(
    ("edit", "settings", "said"),
    [
        ("permut", {}, "'permut' is none of the edits"),
        ("permute", {"correction": "mean"}, "'mean' is none of the corrections"),
        ("permute", {"width": 3}, "edit permute has no parameter 'width'; it has none"),
        ("permute", {"at_error": 0.0}, "at_error is 0.0"),
        ("permute", {"layers": [7]}, "edit permute: the model has no layer 7"),
        ("permute", {"matrices": "mlp"}, "edit permute: 'mlp' matches none of the matrices"),
        ("quantile_match", {}, "needs a layer"),
        ("quantile_match", {"layer": 9}, "_proj in layer 9"),
    ],
)
def test_what_cannot_be_edited_is_refused(edit, settings, said, language_models):
    model = AutoModelForCausalLM.from_pretrained(language_models.clustered)
    with pytest.raises(InputError) as refused:
        isotone.study.edited_codebooks(model, edit, **settings)
    assert said in str(refused.value)


def test_a_dense_model_has_no_codebooks(language_models):
    model = AutoModelForCausalLM.from_pretrained(language_models.dense)
    with pytest.raises(InputError, match="not loaded from a clustered directory"):
        isotone.study.edited_codebooks(model, "permute")


def test_layers_are_chosen_as_in_plans(language_models):
    model = AutoModelForCausalLM.from_pretrained(language_models.clustered)
    every = isotone.study.edited_codebooks(model, "reverse", correction="none")
    some = isotone.study.edited_codebooks(
        model, "reverse", correction="none", layers={"spread": 1}, matrices=["mlp.*"]
    )
    assert {".".join(name.split(".")[:3]) for name in every} == {"model.layers.0", "model.layers.1"}
    assert sorted(some) == [
        f"model.layers.0.mlp.{name}_proj.weight" for name in ("down", "gate", "up")
    ]
    for name, codebook in some.items():
        assert np.array_equal(codebook, every[name])
        assert (np.diff(codebook) < 0).all()
