"""Models by hub id, from a cache laid out by hand as huggingface_hub lays it out; no network."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import constants

from isotone.errors import InputError
from isotone.pipeline.compress import compress
from isotone.pipeline.verify import verify
from tests.builders.checkpoints import Bf16, tree, weights, write_model

COMMITS = {"main": "0123456789abcdef0123456789abcdef01234567", "v2": "f" * 40}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with two revisions of somebody/tiny; the hub itself out of reach."""
    root = tmp_path / "hub"
    repository = root / "models--somebody--tiny"
    for revision, commit in COMMITS.items():
        snapshot = repository / "snapshots" / commit
        tensors = {"a.weight": Bf16(weights(40, 40, seed=len(revision)))}
        files = {"tokenizer.json": revision.encode(), "pytorch_model.bin": b"never read"}
        write_model(snapshot, tensors, config={"revision": revision}, companions=files)
        blob = repository / "blobs" / commit
        blob.parent.mkdir(exist_ok=True)
        (snapshot / "model.safetensors").rename(blob)
        (snapshot / "model.safetensors").symlink_to(f"../../blobs/{commit}")
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / revision).write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return repository / "snapshots"


@pytest.mark.parametrize(
    ("hub_id", "revision"),
    [
        ("somebody/tiny", "main"),
        ("somebody/tiny@v2", "v2"),
        (f"somebody/tiny@{COMMITS['v2']}", "v2"),
    ],
)
def test_a_hub_id_is_what_the_cache_holds(hub_id, revision, cache, tmp_path, isotone, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = isotone("compress", hub_id, "out", "--json")
    assert (run.code, run.json["n_tensors"]) == (0, 1)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["revision"] == revision
    assert (tmp_path / "out" / "tokenizer.json").read_text() == revision
    assert "pytorch_model.bin" not in tree(tmp_path / "out")
    assert verify(tmp_path / "out", against=cache / COMMITS[revision]).ok
    assert isotone("verify", "out", "--against", hub_id).code == 0


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("hub_id", ["somebody/other", "somebody/tiny@v3", "nobody/tiny"])
def test_what_the_cache_lacks_is_refused_offline(hub_id, tmp_path):
    with pytest.raises(InputError, match=f"^{hub_id}: no such path here, and the hub says: "):
        compress(hub_id, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_directory_of_that_name_comes_first(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "somebody" / "tiny", {"b.weight": Bf16(weights(50, 40))}, config={})
    compress("somebody/tiny", "out")
    assert verify("out", against=tmp_path / "somebody" / "tiny").ok
    assert not verify("out", against=cache / COMMITS["main"]).ok
