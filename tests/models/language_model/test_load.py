"""A language model is loaded from its files, or from tensors given by name, or refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from isotone.checkpoint.source.model_directory import ModelDirectory
from isotone.errors import InputError
from isotone.models.language_model.files import open_files
from isotone.models.language_model.load import causal_language_model, load_model
from isotone.models.lazy.loading_tensor import Loading
from isotone.models.lazy.stored import stored_weights
from isotone.models.packed.modules import clustered_weights
from tests.builders import language_model


def test_tensors_by_name_load_as_those_of_the_directory(language_models):
    directory = language_models.dense
    loaded = load_model(open_files(directory))
    tensors = load_file(directory / "model.safetensors")
    given = causal_language_model(directory, tensors=tensors, dtype=torch.float32)
    assert not given.training
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, given.state_dict()[name]), name


def test_lazy_tensors_are_not_read(language_models):
    source = ModelDirectory(language_models.dense)
    model = causal_language_model(source.directory, tensors=stored_weights(source), dtype="float32")
    assert all(isinstance(parameter, Loading) for parameter in model.parameters())


def test_residency_is_that_of_a_clustered_model(language_models):
    files = open_files(language_models.clustered)
    assert clustered_weights(load_model(files, residency="packed"))
    assert not clustered_weights(load_model(files))


def test_a_model_without_all_its_tensors_is_refused(tmp_path):
    directory = language_model.write_language_model(tmp_path / "model")
    tensors = load_file(directory / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of .*, model\.norm\.weight for one"):
        load_model(open_files(directory))


def test_an_unknown_dtype_or_device_is_refused(language_models):
    files = open_files(language_models.dense)
    with pytest.raises(InputError, match="dtype 'int4': expected one of float32, bfloat16"):
        load_model(files, dtype="int4")
    with pytest.raises(InputError, match="device 'abacus': is not available"):
        load_model(files, device="abacus")
