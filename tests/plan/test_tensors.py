"""Which tensors are clustered and how: rules, stacks, ties, shards."""

from __future__ import annotations

import functools
import json
from importlib import import_module

import numpy as np
import pytest
from safetensors import safe_open

from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.errors import InputError
from isotone.pipeline.compress import compress
from isotone.pipeline.decompress import decompress
from isotone.pipeline.verify import verify
from isotone.plan.shards import plan_shards
from isotone.plan.tensors import n_matrices, reason_to_keep
from tests.builders.checkpoints import (
    CLUSTERED,
    Bf16,
    one_of_each,
    safetensors_bytes,
    tree,
    weights,
    write_model,
)


def records_of(directory, kind="clustered"):
    manifest = json.loads((directory / "isotone.json").read_text())
    return {record["name"]: record for record in manifest[kind]}


@pytest.mark.parametrize(
    ("options", "clustered"),
    [
        ({"include": ["mix.0.*"]}, {"mix.0.up.weight", "mix.0.down.weight"}),
        ({"include": ["*.up", "embed"]}, {"embed.weight", "mix.0.up.weight", "mix.1.up.weight"}),
        ({"include": ["mix.*"], "exclude": ["*.up.weight", "*experts*"]}, {"mix.0.down.weight"}),
        ({"exclude": ["m*", "*conv*"]}, {"embed.weight"}),
    ],
)
def test_include_and_exclude(options, clustered, model, tmp_path):
    compress(model, tmp_path / "out", k=4, **options)
    assert records_of(tmp_path / "out").keys() == clustered
    left_out = {
        name
        for name, record in records_of(tmp_path / "out", "kept").items()
        if record["reason"] == "excluded"
    }
    assert left_out - {"small.weight"} == CLUSTERED.keys() - clustered
    assert verify(tmp_path / "out", against=model).ok


def test_settings_apply_in_order_and_later_ones_win(model, tmp_path):
    rules = ["mix.*:k=9,protect=off", "*.up:k=3", "embed.weight:protect=0.01"]
    compress(model, tmp_path / "out", k=5, settings=rules)
    records = records_of(tmp_path / "out")
    assert {name: record["k"] for name, record in records.items()} == {
        "embed.weight": 5,
        "mix.0.up.weight": 3,
        "mix.0.down.weight": 9,
        "mix.1.up.weight": 3,
        "mix.1.experts.gate_up_proj": 9,
        "vision.conv.weight": 5,
        "audio.conv1.weight": 5,
    }
    assert all(record["n_protected"] == 0 for name, record in records.items() if name[0] == "m")
    assert 30 <= records["embed.weight"]["n_protected"] <= 57  # a hundredth of 5,760


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"include": ["model.*"]}, r"include 'model\.\*' matches none of the 8 tensors"),
        ({"include": ["*.bias", "mix.*"]}, r"include '\*\.bias' matches none"),
        ({"include": ["norm"]}, "include 'norm' matches none"),
        ({"exclude": ["lm_head"]}, "exclude 'lm_head' matches none of the 17 tensors"),
        ({"settings": ["lm_head:k=4"]}, "set 'lm_head' matches none of the 7 tensors"),
        ({"settings": ["embed:k=4"], "exclude": ["embed"]}, "set 'embed' matches none of the 6"),
        ({"exclude": ["*"]}, "none of the 17 tensors would be clustered"),
        ({"settings": ["embed"]}, "set is 'embed'; expected GLOB:k=64"),
        ({"settings": [":k=4"]}, "set is ':k=4'; expected GLOB"),
        ({"settings": ["embed:k"]}, "set is 'embed:k'; expected GLOB"),
        ({"settings": ["embed:k=many"]}, "k is 'many'; expected a number from 2 to 256"),
        ({"settings": ["embed:k=1"]}, "k is 1; expected 2 to 256"),
        ({"settings": ["embed:speed=4"]}, "'speed' is not a setting"),
        ({"settings": ["embed:protect=all"]}, "protect is 'all'"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused_before_any_work(options, said, model, tmp_path):
    with pytest.raises(InputError, match=said):
        compress(model, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "shape", "height"),
    [
        ("model.layers.0.mlp.experts.gate_up_proj", (8, 64, 128), 8),
        ("model.layers.0.mlp.experts.down_proj", (8, 4, 4), 8),
        ("block_sparse_moe.w1", (8, 64, 128), 8),
        ("encoder.conv1.weight", (384, 80, 3), 1),
        ("pos_conv_embed.weight", (384, 48, 128), 1),
        ("mixer.kernel", (384, 1, 4), 1),
        ("model.embed_tokens.weight", (100, 64), 1),
        ("patch.weight", (64, 3, 14, 14), 1),
    ],
)
def test_stacks_are_told_from_convolutions(name, shape, height):
    assert n_matrices(TensorInfo(name, "BF16", shape)) == height


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("h.0.ln_1.weight", (64, 64), "norm"),
        ("model.norm.weight", (64, 64), "norm"),
        ("blocks.0.query_norm.scale", (8, 64), None),  # of a module that no rule knows
        ("h.0.attn.bias", (64, 64), "bias"),
        ("in_proj_bias", (3, 64), "bias"),
        ("x.weight", (64,), "not a matrix"),
        ("x.weight", (1, 64, 1), "not a matrix"),
        ("x.weight", (0, 64), "not a matrix"),
        ("x.weight", (2,) * 9, "more than 8 axes"),
        ("x.weight", (64, 64), None),
        ("normal_projection.up.weight", (64, 64), None),
        ("biaser.weight", (64, 64), None),
    ],
)
def test_what_is_no_matrix_is_kept(name, shape, reason):
    assert reason_to_keep(TensorInfo(name, "F32", shape)) == reason


def tied_model(path, config, head=None):
    embedding = Bf16(weights(90, 40, seed=1))
    tensors = {"model.embed_tokens.weight": embedding, "model.up.weight": Bf16(weights(40, 40))}
    tensors["lm_head.weight"] = embedding if head is None else head
    return write_model(path, tensors, config=config)


@pytest.mark.parametrize(
    "config", [{"tie_word_embeddings": True}, {"text_config": {"tie_word_embeddings": True}}]
)
def test_a_tied_copy_is_dropped(config, tmp_path):
    model = tied_model(tmp_path / "model", config)
    summary = compress(model, tmp_path / "out")
    assert (summary.n_tensors, summary.n_kept, summary.coverage) == (2, 0, 1.0)
    record = records_of(tmp_path / "out", "kept")["lm_head.weight"]
    assert record["tied_to"] == "model.embed_tokens.weight"
    assert record["file"] == ""
    assert verify(tmp_path / "out", against=model).ok
    decompress(tmp_path / "out", tmp_path / "dense")
    with safe_open(tmp_path / "dense" / "model.safetensors", "np") as file:
        assert set(file.keys()) == {"model.embed_tokens.weight", "model.up.weight"}


@pytest.mark.parametrize("why", ["not tied", "other bytes", "other shape"])
def test_what_only_looks_tied_stays(why, tmp_path, monkeypatch):
    monkeypatch.setattr("isotone.checkpoint.source.tied._PIECE_WEIGHTS", 1000)
    config = {"tie_word_embeddings": why != "not tied"}
    rows = weights(90, 40, seed=1)[: 80 if why == "other shape" else 90]
    rows[-1, -1] += why == "other bytes"
    head = None if why == "not tied" else Bf16(rows)
    compress(tied_model(tmp_path / "model", config, head), tmp_path / "out")
    assert "lm_head.weight" in records_of(tmp_path / "out")


@pytest.mark.parametrize("suffix", ["_codebook", "_packed", "_protected_value"])
def test_names_that_would_collide_are_refused(suffix, tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {"a.weight": weights(40, 40), f"a.weight{suffix}": weights(5)}
    path.write_bytes(safetensors_bytes(tensors))
    with pytest.raises(InputError, match=f"a.weight{suffix}: has the name"):
        compress(path, tmp_path / "out")


@pytest.mark.parametrize("name", ["", "a b/c\\d", "näme.权重", "x" * 5000, "../../etc", "\x1b[31m"])
def test_odd_names_are_names(name, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes({name: weights(40, 40)}))
    compress(path, tmp_path / "out")
    assert records_of(tmp_path / "out").keys() == {name}
    assert verify(tmp_path / "out", against=path).ok
    decompress(tmp_path / "out", tmp_path / "dense")
    with safe_open(tmp_path / "dense" / "model.safetensors", "np") as file:
        assert set(file.keys()) == {name}


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of 10 kB of dense weights."""
    planning = import_module("isotone.plan.job")
    small = functools.partial(plan_shards, shard_bytes=10_000)
    monkeypatch.setattr(planning, "plan_shards", small)


@pytest.mark.usefixtures("small_shards")
def test_several_shards_and_their_index(model, tmp_path):
    compress(model, tmp_path / "out", k=6)
    shards = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(shards) >= 5
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert verify(tmp_path / "out", against=model).ok
    for directory in (tmp_path / "out", tmp_path / "dense"):
        if directory.name == "dense":
            decompress(tmp_path / "out", directory)
        index = json.loads((directory / "model.safetensors.index.json").read_text())
        held = {}
        for name in shards:
            with safe_open(directory / name, "np") as file:
                held |= dict.fromkeys(file.keys(), name)
        assert index["weight_map"] == held
    assert held.keys() == one_of_each().keys()


@pytest.mark.usefixtures("small_shards")
def test_a_tensor_does_not_depend_on_its_shard(model, compressed, tmp_path):
    compress(model, tmp_path / "out", k=6)
    one, many = records_of(compressed), records_of(tmp_path / "out")
    for name, record in many.items():
        assert {**record, "file": ""} == {**one[name], "file": ""}


def test_a_stack_whose_matrices_have_fewer_values_than_k(tmp_path):
    experts = weights(3, 40, 40)
    experts[1] = np.sign(experts[1])
    experts[2] = 0.25
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes({"experts.w": experts}))
    compress(path, tmp_path / "out", k=8)
    assert verify(tmp_path / "out", against=path).ok
    decompress(tmp_path / "out", tmp_path / "dense")
    with safe_open(tmp_path / "dense" / "model.safetensors", "np") as file:
        assert np.array_equal(file.get_tensor("experts.w")[1:], experts[1:])


def test_a_model_within_a_symlinked_cache_is_read_through_its_links(model, tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    for i, (name, content) in enumerate(tree(model).items()):
        (blobs / str(i)).write_bytes(content)
        (snapshot / name).symlink_to(blobs / str(i))
    compress(snapshot, tmp_path / "out", k=6)
    assert verify(tmp_path / "out", against=model).ok
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
