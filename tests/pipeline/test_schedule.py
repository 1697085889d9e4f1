"""Planning without weights: everything is planned once, and shared out evenly."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from isotone.errors import FormatError, InputError
from isotone.models.shapes import Shapes
from isotone.pipeline.compress import compress
from isotone.pipeline.schedule import CORE_BYTES_PER_SECOND, _shared_out, plan_schedule
from isotone.plan.options import selection_of
from tests.builders.checkpoints import CONFIG, Bf16, safetensors_bytes, weights, write_model

CONFIGS = Path(__file__).parents[2] / "benchmarks" / "inputs" / "configs"
BILLIONS = {"llama-3.1-8b": 8.03, "llama-3.1-70b": 70.55, "llama-3.1-405b": 405.85}
BILLIONS["deepseek-v3-671b"] = 671.03
DEFAULTS = selection_of()[0]


@pytest.mark.parametrize("name", BILLIONS)
@pytest.mark.parametrize("n_nodes", [2, 16])
def test_published_shapes_are_planned_and_shared_out_evenly(name, n_nodes):
    schedule = plan_schedule(CONFIGS / name, DEFAULTS, n_nodes)
    assert schedule.dense_bytes / 2e9 == pytest.approx(BILLIONS[name], abs=0.01)
    assert sum(share.n_bytes for share in schedule.shares) == schedule.dense_bytes
    assert sum(share.n_shards for share in schedule.shares) == schedule.n_shards
    assert schedule.imbalance < 0.1
    longest = schedule.largest_shard_bytes / CORE_BYTES_PER_SECOND
    assert schedule.makespan_seconds == max(longest, max(s.seconds for s in schedule.shares))


def test_a_model_with_weights_is_planned_as_it_is_compressed(tmp_path):
    tensors = {f"{n}.weight": Bf16(weights(70, 80, seed=i)) for i, n in enumerate("abc")}
    model = write_model(tmp_path / "model", tensors | {"norm": weights(80)}, config=CONFIG)
    selection, _ = selection_of(bits=3.0, exclude=["b"])
    schedule = plan_schedule(model, selection)
    summary = compress(model, tmp_path / "out", bits=3.0, exclude=["b"])
    assert (schedule.n_clustered, schedule.n_weights) == (summary.n_tensors, summary.n_weights)
    assert schedule.n_tensors == 4
    assert schedule.dense_bytes == 3 * 70 * 80 * 2 + 80 * 4


def test_sharing_out_is_within_the_bound_of_list_scheduling():
    # Graham 1969: the largest first is within 4/3 - 1/(3 n) of the best there is.
    draw = random.Random(3)
    for _ in range(20):
        sizes = [draw.randrange(1, 100) for _ in range(draw.randrange(1, 9))]
        n = draw.randrange(1, 4)
        best = min(
            max(
                sum(size for size, at in zip(sizes, places, strict=True) if at == node)
                for node in range(n)
            )
            for places in itertools.product(range(n), repeat=len(sizes))
        )
        shares = _shared_out([SimpleNamespace(n_bytes=each) for each in sizes], n, 2.0)
        assert sum(share.n_bytes for share in shares) == sum(sizes)
        assert best <= max(share.n_bytes for share in shares) <= (4 / 3 - 1 / (3 * n)) * best
        assert all(share.seconds == share.n_bytes / 2 for share in shares)


def test_experts_are_planned_one_by_one():
    shapes = Shapes(CONFIGS / "deepseek-v3-671b")
    experts = [t for t in shapes.tensors if t.name.startswith("model.layers.7.mlp.experts.")]
    assert len(experts) == 2 * 256
    assert {tensor.shape for tensor in experts} == {(4096, 7168), (7168, 2048)}
    with pytest.raises(FormatError, match="has no weights"):
        shapes.read(experts[0], 0, 1)


def test_the_command_prints_the_schedule_and_writes_nothing(isotone, tmp_path):
    out = tmp_path / "out"
    options = ["--dry-run", "--nodes", "20", "--node-rate", "2"]
    run = isotone("compress", CONFIGS / "llama-3.1-8b", out, *options)
    assert (run.code, run.err) == (0, "")
    assert "8.03 billion weights" in run.out
    assert "and 4 nodes that are no busier" in run.out
    run = isotone("compress", CONFIGS / "llama-3.1-8b", out, *options, "--json")
    assert len(run.json["shares"]) == 20
    assert run.json["mean_seconds"] == pytest.approx(run.json["dense_bytes"] / 20 / 2e9)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--nodes", "0"], "nodes is 0; expected 1 to 100000"),
        (["--node-rate", "0"], "node rate is 0 GB/s; expected more than 0"),
        (["--k", "1"], "k is 1"),
    ],
)
def test_what_cannot_be_planned(options, said, isotone, tmp_path):
    run = isotone("compress", CONFIGS / "llama-3.1-8b", tmp_path / "out", "--dry-run", *options)
    assert run.code == 2
    assert said in run.err


@pytest.mark.parametrize("option", ["--nodes", "--node-rate"])
def test_what_is_for_planning_is_not_ignored_otherwise(option, isotone, tmp_path):
    run = isotone("compress", CONFIGS / "llama-3.1-8b", tmp_path / "out", option, "4")
    assert run.code == 2
    assert f"{option} is 4, and only --dry-run uses it; add --dry-run" in run.err


@pytest.mark.parametrize("config", [{"model_type": "never heard of"}, {"hidden_size": 7}])
def test_a_config_of_no_language_model(config, isotone, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    run = isotone("compress", tmp_path, tmp_path / "out", "--dry-run")
    assert run.code == 2
    assert "transformers makes no language model of it" in " ".join(run.err.split())


def test_a_quantized_model_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes({"a": weights(40, 40)}))
    (tmp_path / "config.json").write_text(
        json.dumps({"quantization_config": {"quant_method": "x"}})
    )
    with pytest.raises(InputError, match="is quantized already"):
        plan_schedule(tmp_path, DEFAULTS)
