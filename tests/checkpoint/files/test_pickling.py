"""Sources that are sent to another process read the same bytes there, or refuse."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from isotone.checkpoint.files.local_file import PositionedFile
from isotone.checkpoint.opening import open_compressed
from isotone.errors import FormatError
from isotone.models.open_source import open_source
from tests.builders.checkpoints import safetensors_bytes, weights


def everything(source):
    return {t.name: source.read(t, 0, t.n_weights).tobytes() for t in source.tensors}


@pytest.fixture
def single(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes({"a": weights(40, 40), "b": weights(3)}))
    return path


@pytest.mark.parametrize("kind", ["directory", "single"])
def test_a_pickled_source_reads_the_same_bytes(kind, model, single):
    source = open_source(model if kind == "directory" else single)
    again = pickle.loads(pickle.dumps(source))
    assert everything(again) == everything(source)
    assert again.identity() == source.identity()
    assert again.config == source.config
    assert again.companions == source.companions


def test_a_pickled_compressed_directory_reads_the_same_bytes(compressed):
    directory = open_compressed(compressed)
    again = pickle.loads(pickle.dumps(directory))
    assert again.manifest == directory.manifest
    for record in directory.manifest.stored:
        for array in directory.arrays(record):
            stop = array.n_weights
            assert (again.read(array, 0, stop) == directory.read(array, 0, stop)).all()


def test_a_pickled_gguf_reads_the_same_bytes(tmp_path):
    pytest.importorskip("transformers")
    from tests.builders.gguf_models import MODELS, write

    for name, parts in MODELS.items():  # each with readers of its own kind
        source = open_source(write(tmp_path / f"{name}.gguf", *parts))
        again = pickle.loads(pickle.dumps(source))
        assert everything(again) == everything(source)
        assert again.config == source.config


READ = """
import pickle, sys
source = pickle.load(sys.stdin.buffer)
for tensor in source.tensors:
    sys.stdout.buffer.write(source.read(tensor, 0, tensor.n_weights).tobytes())
"""


def test_another_process_elsewhere_finds_a_relative_path(single, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = open_source(single.name)
    ended = subprocess.run(
        [sys.executable, "-c", READ],
        input=pickle.dumps(source),
        cwd=os.sep,
        capture_output=True,
        check=True,
    )
    assert ended.stdout == b"".join(everything(source).values())


def test_a_file_of_another_size_is_refused(single):
    sent = pickle.dumps(open_source(single))
    n_bytes = single.stat().st_size
    with single.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(FormatError, match=f"is {n_bytes + 1} bytes long, and was {n_bytes} when"):
        pickle.loads(sent)


def test_a_file_that_is_gone_is_refused(single):
    sent = pickle.dumps(PositionedFile(single))
    single.unlink()
    with pytest.raises(FormatError, match=r"x\.safetensors: cannot be read: No such file"):
        pickle.loads(sent)


def test_a_copy_outlives_its_original(single):
    file = PositionedFile(single)
    again = pickle.loads(pickle.dumps(file))
    expected = file.read(100, 0)
    del file
    assert np.array_equal(again.read(100, 0), expected)
