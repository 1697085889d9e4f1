"""Verify says yes to what compress wrote, and says what differs from another source."""

from __future__ import annotations

import json
from importlib import import_module

import pytest
from blake3 import blake3

from checkpoints import CONFIG, Bf16, one_of_each, tree, weights, write_model, write_tree
from isotone.pipeline.verify import verify


def test_verify_accepts_the_directory_alone_and_against_its_source(compressed, model):
    for against in (None, model):
        found = verify(compressed, against=against)
        assert (found.ok, found.failures) == (True, ())
        assert found.n_tensors == len(one_of_each())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("norm.weight", "norm.weight: the source is not the one"),
        ("mix.0.up.weight", "mix.0.up.weight: the source is not the one"),
        ("config.json", "config.json: differs"),
        ("tokenizer.json", "tokenizer.json: differs"),
        ("more.weight", "more.weight: is in the source, and was left out"),
        ("mask", "mask: the source has no such tensor"),
    ],
)
def test_verify_tells_what_differs_from_another_source(name, said, compressed, tmp_path):
    tensors, config, tokenizer = one_of_each(), dict(CONFIG), b"{}"
    if name == "config.json":
        config["hidden"] = 49
    elif name == "tokenizer.json":
        tokenizer = b"{ }"
    elif name == "mask":
        del tensors[name]
    else:
        tensors[name] = Bf16(weights(*getattr(tensors.get(name), "shape", (3, 3)), seed=99))
    companions = {"tokenizer.json": tokenizer, "LICENSE": b"free", "modeling.py": b"pass"}
    other = write_model(tmp_path / "other", tensors, config=config, companions=companions)
    failures = verify(compressed, against=other).failures
    assert len(failures) == 1
    assert failures[0].startswith(said)


def test_a_false_distortion_is_found(compressed, model, tmp_path):
    """As a dishonest writer would: the manifest's own digest made to fit."""
    manifest = import_module("isotone.checkpoint.manifest")
    changed = tmp_path / "changed"
    write_tree(changed, tree(compressed))
    text = (changed / "isotone.json").read_text()
    body = json.loads(text)
    body["clustered"][0]["distortion"] *= 1 + 1e-6
    del body["digest"]
    digest = blake3(manifest._canonical(body).encode()).hexdigest()
    (changed / "isotone.json").write_text(manifest._canonical({**body, "digest": digest}))
    assert verify(changed).ok
    failures = verify(changed, against=model).failures
    assert len(failures) == 1
    assert "distortion is" in failures[0]
