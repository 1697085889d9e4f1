"""Inspect names the protected weights, farthest out first; its totals are those of compress."""

from __future__ import annotations

import numpy as np
import pytest

from isotone.pipeline.compress import compress
from isotone.pipeline.inspect import inspect, inspect_tensor
from tests.builders.checkpoints import (
    CLUSTERED,
    Bf16,
    one_of_each,
    safetensors_bytes,
    weights,
    write_model,
)

# So few of so many that none is worth a centroid of its own.
PLANTED = {(3, 7): 7.0, (0, 0): -6.5, (399, 499): 6.0}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A matrix and a stack with known super weights, compressed."""
    root = tmp_path_factory.mktemp("planted")
    matrix = np.random.default_rng(0).standard_normal((400, 500)).astype("<f4") / 8
    stack = weights(3, 200, 250, seed=1)
    for index, value in PLANTED.items():
        matrix[index] = value
    stack[2, 199, 249] = -2.5
    tensors = {"down_proj.weight": Bf16(matrix), "experts.up": stack, "norm.weight": weights(9)}
    model = write_model(root / "model", tensors, config={})
    compress(model, root / "out", k=4)
    return root / "out", tensors


def test_protected_weights_are_named_with_place_value_and_deviations(planted):
    directory, tensors = planted
    report = inspect_tensor(directory, "down_proj.weight", n_protected=3)
    values = tensors["down_proj.weight"].values.astype(np.float64)
    assert [(w.index, w.value) for w in report.protected] == list(PLANTED.items())
    for weight in report.protected:
        sigma = (values[weight.index] - values.mean()) / values.std()
        assert weight.deviations == pytest.approx(sigma, rel=1e-9)
    everything = inspect_tensor(directory, "down_proj", n_protected=10_000).protected
    assert len(everything) == report.record.n_protected > 3
    distances = [abs(weight.deviations) for weight in everything]
    assert distances == sorted(distances, reverse=True)
    assert all(values[weight.index] == weight.value for weight in everything)


def test_an_index_into_a_stack_begins_with_the_matrix(planted):
    farthest = inspect_tensor(planted[0], "experts.up").protected[0]
    assert (farthest.index, farthest.value) == ((2, 199, 249), -2.5)


def test_a_tensor_through_the_command_line(planted, isotone):
    run = isotone("inspect", planted[0], "--tensor", "down_proj.weight", "--top", 2, "--json")
    assert (run.code, run.err) == (0, "")
    assert run.json["name"] == "down_proj.weight"
    assert [w["index"] for w in run.json["protected"]] == [[3, 7], [0, 0]]
    assert [w["value"] for w in run.json["protected"]] == [7.0, -6.5]
    table = isotone("inspect", planted[0], "--tensor", "down_proj").out
    for text in ("[3, 7]", "[0, 0]", "[399, 499]", "-6.5", "weights protected"):
        assert text in table


def test_the_whole_directory(compressed, isotone, tmp_path, model):
    found = inspect(compressed)
    assert {report.record.name for report in found.clustered} == CLUSTERED.keys()
    kept = {record.name for record in found.kept}
    assert kept | CLUSTERED.keys() == one_of_each().keys()
    inspected = isotone("inspect", compressed, "--json").json
    made = isotone("compress", model, tmp_path / "out", "--k", 6, "--json").json
    totals = made.keys() - {"seconds", "peak_rss_bytes"}
    assert {key: inspected[key] for key in totals} == {key: made[key] for key in totals}
    assert len(inspected["tensors"]) == inspected["n_tensors"]
    n_bits = sum(8 * row["stored_bytes"] for row in inspected["tensors"])
    assert inspected["bits_per_weight"] == n_bits / inspected["n_weights"]
    for row, report in zip(inspected["tensors"], found.clustered, strict=True):
        assert row["bits_per_weight"] == report.record.bits_per_weight
        assert row["n_protected"] == report.record.n_protected


def test_tables_show_every_clustered_tensor_and_why_others_are_kept(compressed, isotone):
    table = isotone("inspect", compressed).out
    for text in ("embed.weight", "mix.0.down.weight", "3×48×20", "11.4 σ"):
        assert text in table
    for reason in ("norm", "bias", "dtype F64", "not a matrix", "too small to gain"):
        assert reason in table


def test_brackets_in_names_are_no_markup(isotone, tmp_path):
    path = tmp_path / "[/x]" / "[red].safetensors"
    out = tmp_path / "[/out]"
    path.parent.mkdir(parents=True)
    path.write_bytes(safetensors_bytes({"[/b]a[red]": weights(40, 40), "[/c]": weights(4)}))
    for command, said in {
        ("compress", path, out): "[/out]",
        ("inspect", out): "[/b]a[red]",
        ("inspect", out, "--tensor", "[/b]a[red]"): "[/b]a[red]",
        ("verify", out): "[/out] is whole",
        ("decompress", out, tmp_path / "[/dense]"): "[/dense]",
    }.items():
        run = isotone(*command)
        assert (run.code, run.err) == (0, "")
        assert said in run.out.replace("\n", "")
