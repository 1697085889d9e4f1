"""The same choice of weights where the model is in an object store."""

from __future__ import annotations

import json

import pytest

import isotone
from isotone.errors import FormatError, InputError
from tests.builders.checkpoints import safetensors_bytes, weights, write_tree
from tests.builders.object_store import server, store

__all__ = ["server", "store"]  # fixtures
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


def tensor(name):
    return safetensors_bytes({name: weights(64, 40)})


@pytest.fixture
def put(store, tmp_path):
    def put(files):
        write_tree(tmp_path / "model", {"config.json": b"{}", **files})
        return store.put(tmp_path / "model", "model")

    return put


def test_one_set_is_taken_and_the_others_are_named(put, tmp_path):
    others = {
        "consolidated.safetensors": tensor("original"),
        "model.safetensors.index.json": b'{"weight_map": {"gone": "gone.safetensors"}}',
        "original/model.safetensors": tensor("original"),
        "pytorch_model.bin": b"",
    }
    model = put({"model.safetensors": tensor("layer.weight"), "vocab.txt": b"a", **others})
    summary = isotone.compress(model, tmp_path / "out", k=4)
    assert summary.n_tensors == 1
    assert summary.left_out.keys() == others.keys()
    assert (tmp_path / "out" / "vocab.txt").is_file()
    assert isotone.verify(tmp_path / "out", against=model).ok


@pytest.mark.parametrize(
    ("files", "kind", "says"),
    [
        ({"model-2-of-3.safetensors": tensor("a")}, FormatError, r"model-1-of-3\.safetensors, mod"),
        (
            {"a.safetensors": tensor("a"), "pytorch_model.bin": b""},
            InputError,
            "would load pytorch",
        ),
        ({"pytorch_model.bin": b""}, InputError, "as pickles"),
        ({"model.gguf": b""}, InputError, "as GGUF"),
        (
            {"model.safetensors": b"version https://git-lfs.github.com/spec/v1\noid 0"},
            FormatError,
            "Git LFS pointer",
        ),
        (
            {
                "model.safetensors": tensor("a"),
                "quantize_config.json": json.dumps({"bits": 4}).encode(),
            },
            InputError,
            "quantized already",
        ),
    ],
)
def test_what_is_refused_here_is_refused_there(put, tmp_path, files, kind, says):
    with pytest.raises(kind, match=says):
        isotone.compress(put(files), tmp_path / "out", k=4)
