"""Calibration end to end: a tiny Llama, compressed by what flows through it."""

from __future__ import annotations

import json

import isotone
import language_model
import numpy as np
import pytest
import torch
from isotone.errors import InputError
from isotone.evaluate.loading import load_model, open_files
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return language_model.write_language_model(
        tmp_path_factory.mktemp("calibration") / "dense", hidden_size=64, intermediate_size=128
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(language_model.text(1500), "utf-8")
    return path


def test_bits(dense, text, tmp_path):
    s = isotone.compress(dense, tmp_path / "o", bits=3.5, calibrate=text)
    print(s)
    assert isotone.verify(tmp_path / "o").ok
    load_model(open_files(tmp_path / "o"))
def test_self(dense, text, tmp_path):
    s = isotone.compress(dense, tmp_path / "o", bits=3.5, calibrate="self")
    print(s)
    s = isotone.compress(dense, tmp_path / "p", k=16, calibrate="self")
    print(s)
