"""What is fetched of a model on the hub: its small files, and the one set that isotone takes.

The hub is a folder here, from which huggingface_hub's own filter chooses.
"""

from __future__ import annotations

import json
import shutil

import huggingface_hub
import pytest
from huggingface_hub.utils import filter_repo_objects

from isotone.checkpoint.source.model_directory import ModelDirectory
from isotone.checkpoint.source.snapshot import fetch_model
from isotone.errors import InputError
from tests.builders.checkpoints import safetensors_bytes, weights, write_tree

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
SMALL = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "tokenizer.model": b"",
    "LICENSE": b"",
    "modeling_own.py": b"",
}
UNWANTED = {
    "pytorch_model.bin": b"",
    "model.fp16.safetensors": b"",
    "consolidated.safetensors": b"",
    "original/model.safetensors": b"",
    "original/params.json": b"{}",
    "onnx/model.onnx": b"",
    "model-q4.gguf": b"",
    "checkpoint-500/model.safetensors": b"",
    "checkpoint-500/config.json": b"{}",
}


def tensor(name):
    return safetensors_bytes({name: weights(64, 40)})


SHARDS = {FIRST: tensor("one.weight"), SECOND: tensor("two.weight")}
INDEX = json.dumps({"weight_map": {"one.weight": FIRST, "two.weight": SECOND}}).encode()
SINGLE = {"model.safetensors": tensor("layer.weight")}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Lays out a model on the hub; returns where its files come to lie when they are fetched."""
    here = tmp_path / "cache"

    def snapshot_download(name, *, revision, allow_patterns, ignore_patterns):
        assert (name, revision) == ("somebody/tiny", None)
        names = [path.relative_to(tmp_path / "hub").as_posix() for path in there.rglob("*.*")]
        names.append("LICENSE")
        for each in filter_repo_objects(
            names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        ):
            (here / each).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(there / each, here / each)
        return str(here)

    there = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return lambda files: write_tree(there, {**SMALL, **UNWANTED, **files})


def fetched():
    directory = fetch_model("somebody/tiny")
    names = {path.relative_to(directory).as_posix() for path in directory.rglob("*.*")}
    return directory, names - SMALL.keys()


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (SINGLE, {*SINGLE}),
        ({**SHARDS, "model.safetensors.index.json": INDEX}, {*SHARDS}),
        ({**SHARDS, **SINGLE, "model.safetensors.index.json": INDEX}, {*SINGLE}),
        ({**SHARDS, "m.fp16.safetensors.index.json": INDEX}, {*SHARDS}),
        (
            {**SINGLE, "adapter_model.safetensors": tensor("a.lora_A.weight")},
            {*SINGLE, "adapter_model.safetensors"},
        ),
        (
            {
                **SINGLE,
                "modules.json": b'[{"path": "2_Dense"}]',
                "2_Dense/pytorch_model.bin": b"",
                "3_Dense/config.json": b"{}",
                "3_Dense/model.safetensors": tensor("linear.weight"),
            },
            {*SINGLE, "2_Dense/pytorch_model.bin", "3_Dense/model.safetensors"},
        ),
        (
            {
                **SHARDS,
                **SINGLE,
                "config.json": b'{"transformers_weights": "new.safetensors"}',
                "new.safetensors": tensor("layer.weight"),
            },
            {"new.safetensors"},
        ),
    ],
)
def test_the_set_that_is_taken_is_fetched_and_no_other(hub, files, wanted):
    hub(files)
    directory, names = fetched()
    assert {name for name in names if not name.endswith(".json")} == wanted
    assert {file.path.name for file in ModelDirectory(directory).files} <= wanted


def test_where_transformers_finds_nothing_all_sets_are_fetched_and_named(hub):
    hub({})
    directory, names = fetched()
    assert names == {"model.fp16.safetensors", "consolidated.safetensors"}
    with pytest.raises(InputError, match="more than one set of weights"):
        ModelDirectory(directory)


def test_a_model_without_safetensors_is_named(hub, monkeypatch):
    monkeypatch.setattr(f"{__name__}.UNWANTED", {"pytorch_model.bin": b"", "model.gguf": b""})
    hub({})
    with pytest.raises(InputError, match=r"^somebody/tiny: has no weights as safetensors"):
        fetched()
