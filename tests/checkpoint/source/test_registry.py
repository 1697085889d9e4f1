"""A kind of source that another package adds is opened by its name, like isotone's own."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from isotone import entry_points as extensions
from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.model_directory import ModelDirectory
from isotone.checkpoint.source.registry import find_kind, forget_source, register_source
from isotone.errors import InputError
from isotone.models.open_source import open_source
from isotone.pipeline.compress import compress
from isotone.pipeline.decompress import decompress
from isotone.pipeline.verify import verify
from tests.builders.checkpoints import weights, write_model


class NumpyFile:
    """A toy: one .npy file as the only tensor of a model."""

    def __init__(self, path):
        self.path = path
        array = np.load(path)
        self.tensors = [TensorInfo("weight", "F32", array.shape)]
        self.config, self.companions, self.skipped, self.left_out = {}, (), (), {}
        self.n_bytes = array.nbytes

    def read(self, tensor, start, stop):  # noqa: ARG002
        return np.load(self.path).reshape(-1)[start:stop].view(np.uint8)

    def forget(self, tensor, start, stop):
        pass

    def identity(self):
        return {self.path.name: self.path.stat().st_mtime_ns}


@pytest.fixture
def numpy_source():
    @register_source("numpy", accepts=lambda _, path: path.suffix == ".npy")
    def open_numpy(model, path):  # noqa: ARG001
        return NumpyFile(path)

    yield
    forget_source("numpy")


@pytest.fixture
def array(tmp_path):
    np.save(tmp_path / "model.npy", weights(40, 50))
    return tmp_path / "model.npy"


@pytest.mark.usefixtures("numpy_source")
def test_a_registered_source_goes_through_every_stage(array, tmp_path):
    compress(array, tmp_path / "out", k=4)
    assert verify(tmp_path / "out", against=array).ok
    decompress(tmp_path / "out", tmp_path / "dense")
    assert (
        len(
            np.unique(
                open_source(tmp_path / "dense")
                .read(TensorInfo("weight", "F32", (40, 50)), 0, 2000)
                .view(np.float32)
            )
        )
        >= 4
    )


def test_without_it_the_file_is_refused(array):
    with pytest.raises(InputError, match=r"model\.npy: expected a directory, a \.safetensors"):
        open_source(array)


def test_the_kind_that_was_registered_last_is_asked_first(tmp_path):
    model = write_model(tmp_path / "model", {"a": weights(9, 9)})
    opened = []
    register_source("mine", accepts=lambda _, path: path.is_dir())(
        lambda text, path: opened.append((text, path)) or ModelDirectory(path)
    )
    try:
        assert isinstance(open_source(model), ModelDirectory)
    finally:
        forget_source("mine")
    assert opened == [(str(model), model)]
    assert isinstance(open_source(model), ModelDirectory)
    assert len(opened) == 1


def test_a_fallback_is_asked_last_whenever_it_was_registered(tmp_path):
    """isotone's own kinds are registered when a model is first opened: after those of a caller."""
    register_source("mine", accepts=lambda _, path: path.is_dir())(ModelDirectory)
    register_source("late", accepts=lambda _, path: path.is_dir(), fallback=True)(ModelDirectory)
    try:
        assert find_kind(str(tmp_path), tmp_path).name == "mine"
    finally:
        forget_source("mine")
        forget_source("late")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Make entry points of a package of this name, whose module has some text."""

    def install(text):
        (tmp_path / "foreign_source.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "foreign_source", raising=False)
        point = EntryPoint("foreign", "foreign_source", extensions.SOURCES)
        monkeypatch.setattr(
            extensions, "entry_points", lambda group: [point][: group == point.group]
        )
        extensions.import_extensions.cache_clear()

    yield install
    forget_source("foreign")
    extensions.import_extensions.cache_clear()


def test_another_package_is_found_by_its_entry_point(array, installed):
    installed(
        "from isotone.checkpoint.source.registry import register_source\n"
        "from tests.checkpoint.source.test_registry import NumpyFile\n"
        "register_source('foreign', accepts=lambda _, path: path.suffix == '.npy')(\n"
        "    lambda _, path: NumpyFile(path))\n"
    )
    assert [tensor.shape for tensor in open_source(array).tensors] == [(40, 50)]


def test_a_package_that_cannot_be_imported_is_named(array, installed):
    installed("import a_module_that_is_not_there\n")
    with pytest.raises(InputError, match=r"foreign_source: the source 'foreign' of another packa"):
        open_source(array)
