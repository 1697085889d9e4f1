"""A tiny clustered language model to heal, for the tests of `isotone heal`."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from transformers import AutoModelForCausalLM

import isotone
from isotone.healing.run import heal
from isotone.healing.settings import HealSettings
from isotone.models.language_model.files import load_tokenizer
from isotone.models.text import encode
from tests.builders import language_model

CONTEXT = 32
SETTINGS = HealSettings(steps=24, evaluate_every=8, learning_rate=0.1)


def write_models(at):
    """A dense model, clusterings of it with and without scales, and a text."""
    dense = language_model.write_language_model(at / "dense")
    isotone.compress(dense, at / "clustered", k=5, scale="none")
    isotone.compress(dense, at / "scaled", k=4, scale="both")
    (at / "text.txt").write_text(language_model.text(3000), "utf-8")
    return SimpleNamespace(
        dense=dense, clustered=at / "clustered", scaled=at / "scaled", text=at / "text.txt"
    )


def healed(models, out, **changes):
    options = {"text": models.text, "teacher": models.dense, "context": CONTEXT}
    options |= {"settings": SETTINGS, "directory": models.clustered}
    return heal(out=out, **options | changes)


def arguments(models, out):
    return (
        *("heal", models.clustered, out, "--text", models.text, "--teacher", models.dense),
        *(
            "--context",
            CONTEXT,
            "--steps",
            SETTINGS.steps,
            "--evaluate-every",
            8,
            "--learning-rate",
            0.1,
        ),
    )


def loaded(directory, **options):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, **options)


def encoded(models):
    """The tokens of the text."""
    return encode(load_tokenizer(models.dense), models.text.read_text("utf-8"))
