"""A model's files are opened once, dense or clustered, and kept open."""

from __future__ import annotations

import json

import pytest

from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.source.model_directory import ModelDirectory
from isotone.errors import FormatError, InputError
from isotone.models.language_model.checks import check_context, check_same_vocabulary, check_tokens
from isotone.models.language_model.files import ModelFiles, open_files
from isotone.models.text import encode
from tests.builders import language_model


def test_a_dense_and_a_clustered_model_stay_open(language_models):
    dense, clustered = open_files(language_models.dense), open_files(language_models.clustered)
    assert isinstance(dense.dense, ModelDirectory)
    assert dense.clustered is None
    assert isinstance(clustered.clustered, CompressedDirectory)
    assert clustered.dense is None
    assert clustered.directory == clustered.clustered.path
    assert dense.max_positions == clustered.max_positions == language_model.MAX_POSITIONS
    check_same_vocabulary(dense, clustered)


def test_an_open_directory_is_not_opened_again(language_models):
    opened = ModelDirectory(language_models.dense)
    files = ModelFiles.of(opened)
    assert files.dense is opened
    assert files.name == str(language_models.dense)


def test_what_a_model_cannot_take_is_refused(language_models):
    files = open_files(language_models.dense)
    tokens = encode(files.tokenizer, language_model.text())
    check_tokens(files, tokens)
    with pytest.raises(InputError, match="the tokenizer belongs to another model"):
        check_tokens(files, tokens * 0 + files.vocabulary_size)
    check_context(files, language_model.MAX_POSITIONS, "so many")
    with pytest.raises(InputError, match=r"^too many: 65 tokens, and .* takes at most 64$"):
        check_context(files, language_model.MAX_POSITIONS + 1, "too many")


def test_a_config_without_a_model_type_is_refused(language_models, tmp_path):
    for path in language_models.dense.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    del config["model_type"]
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(InputError, match="names no model_type"):
        open_files(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "merges.txt"])
def test_a_pointer_in_the_place_of_a_tokenizer_is_named(language_models, tmp_path, name):
    for path in language_models.dense.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(FormatError, match=f"{name}: is a Git LFS pointer"):
        open_files(tmp_path)
