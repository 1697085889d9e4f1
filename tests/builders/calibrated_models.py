"""A small language model, a text and their statistics, for tests of calibration.

The fixtures are imported by the conftest of each folder that uses them.
"""

from __future__ import annotations

import pytest

import isotone
from tests.builders import language_model

WIDE = {"hidden_size": 64, "intermediate_size": 128}
PROJECTIONS = [f"model.layers.{i}.self_attn.{name}_proj.weight" for i in (0, 1) for name in "qkvo"]


@pytest.fixture(scope="session")
def dense(tmp_path_factory):
    """A tiny Llama. Not to be written to."""
    return language_model.write_language_model(tmp_path_factory.mktemp("model") / "dense", **WIDE)


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    """A text for its tokenizer."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(language_model.text(3000), "utf-8")
    return path


@pytest.fixture(scope="session")
def statistics(dense, text, tmp_path_factory):
    """The statistics of the model on the text. Not to be written to."""
    out = tmp_path_factory.mktemp("statistics") / "out"
    isotone.calibrate(dense, out, text=text)
    return out
