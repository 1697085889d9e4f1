"""Verify says yes to what compress wrote, and says what differs from another source."""

from __future__ import annotations

import json

import pytest

from isotone.pipeline.verify import verify
from tests.builders.checkpoints import (
    CONFIG,
    Bf16,
    one_of_each,
    tree,
    weights,
    write_model,
    write_tree,
)
from tests.builders.tampering import forge, set_value


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
    changed = tmp_path / "changed"
    write_tree(changed, tree(compressed))
    recorded = json.loads((changed / "isotone.json").read_text())["clustered"][0]["distortion"]
    forge(changed, set_value("clustered", "distortion", recorded * (1 + 1e-6)))
    assert verify(changed).ok
    failures = verify(changed, against=model).failures
    assert len(failures) == 1
    assert "distortion is" in failures[0]
