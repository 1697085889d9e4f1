"""`isotone inspect` as text: kinds of matrices, whole names, and lines that fit the terminal."""

from __future__ import annotations

import re

import pytest

from isotone.cli.directory_tables import shortened
from isotone.pipeline.compress import compress
from isotone.pipeline.inspect import inspect
from tests.builders.checkpoints import Bf16, weights, write_model

N_LAYERS = 11
IN_LAYER = {
    "self_attn.q_proj": (48, 40),
    "self_attn.kv_a_proj_with_mqa": (24, 40),
    "mlp.experts.gate_up_proj": (2, 40, 40),
}


@pytest.fixture(scope="module")
def layered(tmp_path_factory):
    """A compressed model of eleven layers with names that are long, some too long for any line."""
    root = tmp_path_factory.mktemp("layered")
    tensors = {"model.embed_tokens.weight": Bf16(weights(300, 40))}
    for layer in range(N_LAYERS):
        for at, (name, shape) in enumerate(IN_LAYER.items()):
            whole = f"model.layers.{layer}.{name}.weight"
            tensors[whole] = Bf16(weights(*shape, seed=1 + 7 * layer + at))
        tensors[f"model.layers.{layer}.post_attention_layernorm.weight"] = weights(40)
    tensors[f"{'long_' * 20}head.weight"] = weights(60, 40, seed=99)
    model = write_model(root / "model", tensors, config={})
    compress(model, root / "out", settings=["*q_proj*:k=8", "*.3.self_attn.q_proj*:k=5"])
    return root / "out"


def lines_at(width, isotone, monkeypatch, *arguments):
    monkeypatch.setattr("isotone.cli.console.stdout._width", width)
    run = isotone("inspect", *arguments)
    assert (run.code, run.err) == (0, "")
    return run.out.splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_no_line_is_too_long_and_no_word_is_broken(width, layered, isotone, monkeypatch):
    monkeypatch.chdir(layered.parent)
    lines = lines_at(width, isotone, monkeypatch, layered.name)
    assert max(map(len, lines)) <= width
    words = {word for name in IN_LAYER for word in name.split(".")} | {"embed_tokens", "model"}
    words |= {"post_attention_layernorm", "layers", "weight"}
    pieces = {piece for word in words for piece in word.split("_")}
    for line in lines:
        for found in re.findall(r"[a-z]+(?:_[a-z]+)+", line.split("…")[0]):
            assert found in words or not pieces & {*found.split("_")}, line


def test_at_80_columns_tensors_stand_below_their_layers(layered, isotone, monkeypatch):
    lines = lines_at(80, isotone, monkeypatch, layered)
    layers = [line.strip() for line in lines if re.fullmatch(r" model\.layers\.\d+ *", line)]
    assert layers == [f"model.layers.{number}" for number in range(N_LAYERS)]
    first = lines.index(next(line for line in lines if line.strip() == "model.layers.0"))
    below = [line.split()[0] for line in lines[first + 1 : first + 4]]
    assert below == ["mlp.experts.gate_up_proj", "…kv_a_proj_with_mqa", "self_attn.q_proj"]


def test_a_wide_terminal_shows_whole_names_in_the_order_of_layers(layered, isotone, monkeypatch):
    lines = lines_at(200, isotone, monkeypatch, layered)
    names = [line.split()[0] for line in lines if ".self_attn.q_proj.weight" in line]
    assert names == [f"model.layers.{n}.self_attn.q_proj.weight" for n in range(N_LAYERS)]
    assert any(line.split()[:1] == [f"{'long_' * 20}head.weight"] for line in lines)


def test_a_narrow_terminal_shows_fewer_columns_and_names_that_can_be_read(
    layered, isotone, monkeypatch
):
    lines = lines_at(60, isotone, monkeypatch, layered)
    kinds, tensors = (line.split() for line in lines if line.split()[:1] in (["kind"], ["tensor"]))
    assert kinds == ["kind", "matrices", "weights", "K", "bits"]
    assert tensors == ["tensor", "shape", "K", "bits", "error"]
    assert sum("self_attn.q_proj " in line for line in lines) == 1 + N_LAYERS


def test_kinds_come_first_and_add_up(layered, isotone, monkeypatch):
    lines = lines_at(80, isotone, monkeypatch, layered)
    (row,) = (line.split() for line in lines[: 4 + len(IN_LAYER) + 2] if "q_proj" in line)
    assert row[:4] == ["self_attn.q_proj", f"{N_LAYERS}", "21.1", "k"]
    assert row[4] == "5–8"
    found = isotone("inspect", layered, "--json").json
    kinds = {kind["kind"]: kind for kind in found["kinds"]}
    assert kinds["mlp.experts.gate_up_proj"]["n_matrices"] == 2 * N_LAYERS
    assert (kinds["self_attn.q_proj"]["k_min"], kinds["self_attn.q_proj"]["k_max"]) == (5, 8)
    for key in ("n_weights", "n_protected", "n_tensors"):
        assert sum(kind[key] for kind in kinds.values()) == found[key]
    bits = sum(kind["bits_per_weight"] * kind["n_weights"] for kind in kinds.values())
    assert bits / found["n_weights"] == pytest.approx(found["bits_per_weight"], rel=1e-12)
    errors = [kind["relative_distortion"] for kind in kinds.values()]
    assert min(errors) <= found["relative_distortion"] <= max(errors)


def test_of_many_kept_tensors_one_line_tells(layered, isotone, monkeypatch):
    lines = lines_at(80, isotone, monkeypatch, layered)
    said = " ".join(line.strip() for line in lines)
    assert f"not a matrix: post_attention_layernorm ({N_LAYERS} tensors)" in said


@pytest.mark.parametrize("width", [80, 140])
def test_one_tensor_fits_as_well(width, layered, isotone, monkeypatch):
    name = "model.layers.10.self_attn.kv_a_proj_with_mqa.weight"
    lines = lines_at(width, isotone, monkeypatch, layered, "--tensor", name)
    assert lines[0] == name
    assert max(map(len, lines)) <= width


def test_a_name_is_cut_between_words():
    name = "model.layers.0.self_attn.q_proj.weight"
    for width in range(10, 60):
        found = shortened(name, width)
        assert len(found) <= width
        if "…" in found:
            head, tail = found.split("…")
            assert name.startswith(head)
            assert name.endswith(tail)
            assert not head or head.endswith(".")
            assert name[-len(tail) - 1] == "."
        else:
            assert found == name
    assert shortened("a" * 50, 11) == "aaaaa…aaaaa"


def test_every_tensor_has_a_row(layered, isotone, monkeypatch):
    n_tensors = len(inspect(layered).clustered)
    rows = [line for line in lines_at(200, isotone, monkeypatch, layered) if "×" in line]
    assert len(rows) == n_tensors == 2 + N_LAYERS * len(IN_LAYER)
