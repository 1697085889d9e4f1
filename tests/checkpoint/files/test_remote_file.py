"""Models that are read from an object store."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from isotone.checkpoint.files.location import locate
from isotone.errors import FormatError, InputError
from isotone.models.open_source import open_source
from isotone.pipeline.compress import compress
from tests.builders.checkpoints import safetensors_bytes, tree, weights
from tests.builders.object_store import server, store

__all__ = ["server", "store"]  # fixtures


def test_a_model_in_the_store_gives_the_same_bytes(store, model, compressed, tmp_path):
    compress(store.put(model, "model"), tmp_path / "out", k=6)
    assert tree(tmp_path / "out") == tree(compressed)


def test_a_single_file_in_the_store_gives_the_same_bytes(store, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes({"a": weights(40, 40)}))
    store.client.put_file(str(path), f"{store.url}/x.safetensors")
    compress(f"{store.url}/x.safetensors", tmp_path / "remote")
    compress(path, tmp_path / "local")
    assert tree(tmp_path / "remote") == tree(tmp_path / "local")


def test_verify_against_the_store(store, model, compressed, isotone):
    url = store.put(model, "model")
    assert isotone("verify", compressed, "--against", url).code == 0
    store.client.pipe(f"{url}/tokenizer.json", b"{ }")
    run = isotone("verify", compressed, "--against", url, "--json")
    assert (run.code, run.json["failures"]) == (
        1,
        ["tokenizer.json: differs from the source's, or was left out"],
    )


def test_other_schemes_lead_to_the_same_model(model, compressed, tmp_path):
    memory = locate("memory://models/m")
    memory.fs.put(f"{model}/", memory.path, recursive=True)
    compress("memory://models/m", tmp_path / "memory", k=6)
    assert tree(tmp_path / "memory") == tree(compressed)
    compress(f"file://{model}", tmp_path / "file", k=6)
    assert tree(tmp_path / "file") == tree(compressed)


def test_a_pickled_source_in_the_store_reads_on_or_refuses(store, model):
    url = store.put(model, "model")
    source = open_source(url)
    sent = pickle.dumps(source)
    again = pickle.loads(sent)
    assert again.identity() == source.identity()
    for tensor in source.tensors:
        expected = source.read(tensor, 0, tensor.n_weights)
        assert (again.read(tensor, 0, tensor.n_weights) == expected).all()
    name = f"{url}/model-00002-of-00002.safetensors"
    store.client.pipe(name, store.client.cat(name) + b"\0")
    with pytest.raises(FormatError, match=r"bytes long, and was \d+ when it was opened first"):
        pickle.loads(sent)


def test_identity_changes_with_any_file(store, model):
    url = store.put(model, "model")
    first = open_source(url).identity()
    assert open_source(url).identity() == first
    name = f"{url}/model-00001-of-00002.safetensors"
    content = bytearray(store.client.cat(name))
    content[-1] ^= 1
    store.client.pipe(name, bytes(content))
    changed = open_source(url).identity()
    assert [key for key in first if first[key] != changed[key]] == [name.rsplit("/", 1)[1]]


def refusal(isotone, *arguments):
    """The one line with which a command refuses."""
    run = isotone(*arguments)
    assert (run.code, run.out) == (2, "")
    assert run.err.count("\n") == 1
    return run.err


def test_what_the_store_lacks_is_refused(store, isotone, tmp_path):
    for url, said in {
        "s3://no-such-bucket/model": "nothing is there (The specified bucket does not exist)",
        f"{store.url}/model": "nothing is there",
        "nothing://of/that/name": "cannot be opened: Unsupported filesystem: 'nothing'",
    }.items():
        assert f"isotone: {url}: {said}" in refusal(isotone, "compress", url, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_truncated_shard_is_refused(store, model, isotone, tmp_path):
    url = store.put(model, "model")
    name = f"{url}/model-00002-of-00002.safetensors"
    store.client.pipe(name, store.client.cat(name)[:-1])
    line = refusal(isotone, "compress", url, tmp_path / "out")
    assert f"isotone: {name}: is" in line
    assert "the file is truncated or damaged" in line


def test_a_file_that_shrinks_while_it_is_read_is_refused(store):
    path = f"{store.url}/x.safetensors"
    content = safetensors_bytes({"a": weights(40, 40)})
    store.client.pipe(path, content)
    source = open_source(path)
    store.client.pipe(path, content[:-1])
    with pytest.raises(FormatError, match=f"^{path}: was truncated while it was read"):
        source.read(source.tensors[0], 0, 1600)
    store.client.rm(path)
    with pytest.raises(FormatError, match=f"^{path}: cannot be read: The specified key does not"):
        source.read(source.tensors[0], 0, 1600)


def test_gguf_in_the_store_is_refused(store, tmp_path):
    store.client.pipe(f"{store.url}/m.gguf", b"GGUF")
    with pytest.raises(InputError, match=r"m\.gguf: GGUF is read from this machine's disks only"):
        compress(f"{store.url}/m.gguf", tmp_path / "out")


WITHOUT = """
import sys
sys.modules[{missing!r}] = None
from isotone.cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("s3fs", "cannot be opened: Install s3fs to access S3"),
        ("upath", "needs packages that are missing: pip install 'isotone[remote]'"),
    ],
)
def test_a_missing_library_is_named(missing, said, tmp_path):
    program = WITHOUT.format(missing=missing)
    command = [sys.executable, "-c", program, "compress", "s3://b/m", tmp_path / "out"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert f"isotone: s3://b/m{':' if missing == 's3fs' else ''} {said}" in ended.stderr


def test_an_unreachable_store_is_refused(tmp_path):
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    program = "from isotone.cli.main import main; main()"
    command = [sys.executable, "-c", program, "compress", "s3://b/m", tmp_path / "out"]
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | nowhere | keys)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert "isotone: s3://b/m: cannot be read: Could not connect" in ended.stderr


@pytest.mark.parametrize(
    "command", [["eval", "--text", "x.txt"], ["generate", "x"], ["frontier", "out", "--text", "x"]]
)
def test_what_transformers_loads_is_fetched_first(command, isotone):
    pytest.importorskip("torch")
    name, *others = command
    line = refusal(isotone, name, "memory://some/model", *others)
    assert (
        "memory://some/model: is in an object store, and transformers loads models from this"
        in line
    )


def test_a_url_that_lost_a_slash_is_refused(tmp_path):
    for lost in (Path("s3://bucket/model"), tmp_path / "s3:" / "bucket" / "model"):
        with pytest.raises(
            InputError, match=f"^{lost}: is a URL that became a path of this machine"
        ):
            compress(lost, tmp_path / "out")
