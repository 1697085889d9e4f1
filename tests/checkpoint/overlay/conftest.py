"""Directories and overlays that the tests of this folder share; none is to be changed."""

from __future__ import annotations

import functools
from importlib import import_module

import pytest

from isotone.pipeline.compress import compress
from isotone.plan.shards import plan_shards
from tests.builders.checkpoints import CONFIG, one_of_each, write_model
from tests.builders.overlays import make_pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A base and a codebook-only directory over it."""
    return make_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """`one_of_each` in a dozen shards with both scales: the source and its clustered form."""
    root = tmp_path_factory.mktemp("sharded")
    companions = {"tokenizer.json": b"{}", "LICENSE": b"free"}
    write_model(root / "model", one_of_each(), config=CONFIG, companions=companions)
    planning = import_module("isotone.plan.job")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "plan_shards", functools.partial(plan_shards, shard_bytes=8_000))
        compress(root / "model", root / "base", k=6, scale="both")
    assert len(list((root / "base").glob("*.safetensors"))) > 8
    return root
