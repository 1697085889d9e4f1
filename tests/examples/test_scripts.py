"""Every short script in examples/ runs on a tiny language model."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import isotone
from isotone.checkpoint.source.registry import forget_source
from isotone.core.clustering import method as methods

EXAMPLES = Path(__file__).parents[2] / "examples"
MOST_LINES = 45
DEMO = "demo.py"  # `make demo` runs it: it downloads a model


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs `python examples/NAME ARGUMENTS...` in this process, and returns what it printed."""

    def started(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return started


def test_compress_and_generate(run, language_models, tmp_path):
    options = ["--bits", 4, "--prompt", "the model"]
    printed = run("compress_and_generate.py", language_models.dense, tmp_path / "out", *options)
    first, dense, clustered = printed.splitlines()
    assert "bits per weight" in first
    assert dense.startswith(f"{language_models.dense}: the model")
    assert clustered.startswith(f"{tmp_path / 'out'}: the model")


def test_cluster_an_array(run, language_models):
    lines = run("cluster_an_array.py", language_models.dense).splitlines()
    assert lines[0] == "model.layers.0.self_attn.q_proj.weight: 32 rows, 32 columns"
    errors = [float(line.split("relative error ")[1].split(",")[0]) for line in lines[1:]]
    assert len(errors) == 3
    assert errors == sorted(errors, reverse=True)


def test_edit_codebooks(run, language_models):
    lines = run("edit_codebooks.py", language_models.clustered).splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        "sorted_normal",
        "even_spacing",
        "reverse",
        "permute",
    ]
    assert [line.split(", ")[1] for line in lines[1:]] == 2 * ["keeps the order"] + 2 * [
        "breaks the order"
    ]


def test_numpy_source(run, tmp_path):
    (tmp_path / "model").mkdir()
    weights = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    np.save(tmp_path / "model" / "layers.0.up_proj.weight.npy", weights)
    try:
        printed = run("numpy_source.py", tmp_path / "model", tmp_path / "out")
        assert isotone.verify(tmp_path / "out", against=tmp_path / "model").ok
    finally:
        forget_source("numpy")
    assert "bits_per_weight" in printed


def test_heal(run, language_models, tmp_path):
    options = ["--text", language_models.text, "--steps", 2, "--context", 16]
    printed = run("heal.py", language_models.dense, tmp_path, *options)
    assert printed.startswith("perplexity ")
    assert (tmp_path / "clustered" / "isotone.json").is_file()


def test_quantile_method(run, language_models, tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "_FACTORIES", dict(methods._FACTORIES))
    lines = run("quantile_method.py", language_models.dense, tmp_path).splitlines()
    assert [line.split(":")[0] for line in lines] == ["quantiles", "kmeans"]
    quantiles, kmeans = (float(line.split()[-1]) for line in lines)
    assert 0 < kmeans < quantiles < 1  # k-means is the optimum
    assert isotone.verify(tmp_path / "quantiles", against=language_models.dense).ok


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_scripts_are_short_and_tested(path):
    if path.name != DEMO:
        assert len(path.read_text("utf-8").splitlines()) <= MOST_LINES
        assert f'"{path.name}"' in Path(__file__).read_text("utf-8")
