"""Healing knows of no architecture: whatever loads packed can be trained."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import isotone
from isotone.checkpoint.opening import open_compressed
from isotone.checkpoint.overlay.tensor_overlay import fit_overlay
from isotone.engine.progress import Silent
from isotone.healing.settings import HealSettings
from isotone.healing.text import HealingText
from isotone.healing.trainable import open_for_training
from isotone.healing.training import Training
from isotone.models.plugin.config import IsotoneConfig
from tests.builders.tiny_models import CONFIGS, write_tiny


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_kind_of_model_is_healed(kind, tmp_path):
    """All matrices at K = 3, embeddings and experts among them."""
    dense = write_tiny(kind, tmp_path / "dense")
    isotone.compress(dense, tmp_path / "clustered", k=3, protect="off", scale="none")
    teacher = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32).eval()
    student = AutoModelForCausalLM.from_pretrained(
        tmp_path / "clustered",
        dtype=torch.float32,
        quantization_config=IsotoneConfig(residency="packed"),
    ).eval()
    directory = open_compressed(tmp_path / "clustered")
    trainable = open_for_training(student, directory.manifest, ["codebook"], "keep")
    assert {weight.name for weight in trainable.weights} == {
        record.name for record in directory.manifest.clustered
    }
    tokens = torch.randint(3, 160, (4, 16), generator=torch.Generator().manual_seed(1)).numpy()
    text = HealingText(tokens, tokens)  # random weights have nothing to generalise
    settings = HealSettings(steps=8, batch=4, evaluate_every=2, learning_rate=0.02)
    training = Training(Accelerator(cpu=True), student, teacher, trainable, text, settings)
    before = [codebook.clone() for codebook in codebooks(trainable)]
    training.run(lambda _: None, lambda _: None, Silent())
    assert training.state.best_validation.loss < training.state.validations[0].loss
    for weight, one, other in zip(trainable.weights, before, codebooks(trainable), strict=True):
        assert not torch.equal(one, other), weight.name
    records = {record.name: record for record in directory.manifest.clustered}
    for change in trainable.overlays():
        assert fit_overlay(change, directory, records[change.name]).record.name == change.name


def codebooks(trainable):
    return [weight.codebook.detach() for weight in trainable.weights]


def test_matrices_that_are_stored_once_are_trained_as_one(tmp_path):
    """An untied model whose head equals its embedding has the stored matrix twice."""
    file = write_tiny("llama-untied", tmp_path / "dense") / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, file, metadata={"format": "pt"})
    isotone.compress(tmp_path / "dense", tmp_path / "clustered", k=3, protect="off")
    student = AutoModelForCausalLM.from_pretrained(
        tmp_path / "clustered", quantization_config=IsotoneConfig(residency="packed")
    )
    manifest = open_compressed(tmp_path / "clustered").manifest
    trainable = open_for_training(student, manifest, ["codebook"], "keep")
    names = [weight.name for weight in trainable.weights]
    assert sorted(names) == sorted(record.name for record in manifest.clustered)
    assert sorted(change.name for change in trainable.overlays()) == sorted(names)
    before = student.lm_head.weight.detach().clone()
    with torch.no_grad():
        for parameter in trainable.parameters:
            parameter.add_(0.5)
    after = student.lm_head.weight.detach().clone()
    assert not torch.equal(after, before)
    assert torch.equal(after, student.model.embed_tokens.weight.detach().clone())
