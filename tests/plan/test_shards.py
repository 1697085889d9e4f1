"""How tensors are grouped into files, and that nothing in them depends on it."""

from __future__ import annotations

import functools
import json
from importlib import import_module

import pytest
from safetensors import safe_open

from isotone.pipeline.compress import compress
from isotone.pipeline.decompress import decompress
from isotone.pipeline.verify import verify
from isotone.plan.shards import plan_shards
from tests.builders.checkpoints import one_of_each


def records_of(directory, kind="clustered"):
    manifest = json.loads((directory / "isotone.json").read_text())
    return {record["name"]: record for record in manifest[kind]}


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
