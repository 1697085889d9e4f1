"""Finds a language model and opens everything of it but its weights.

A compressed directory is opened as a dense one is: importing any module of isotone has told
transformers how to load it (see `isotone.models.plugin.registration`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import transformers

from isotone.checkpoint.compressed.dense_folder import hold_dense_weights
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.files.lfs import refuse_pointer_file
from isotone.checkpoint.files.location import is_remote, locate
from isotone.checkpoint.opening import open_compressed
from isotone.checkpoint.source.companions import MANIFEST_FILE
from isotone.checkpoint.source.model_directory import ModelDirectory
from isotone.checkpoint.source.model_json import read_json
from isotone.checkpoint.source.weight_files import CONFIG_FILE, find_weight_files
from isotone.errors import InputError
from isotone.models.open_source import open_source
from isotone.models.transformers_calls import transformers_errors

# One of these holds a tokenizer's vocabulary, whatever its kind.
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
    "source.spm",
    "tekken.json",
)
_BESIDE_TOKENIZER = ("tokenizer_config.json", "merges.txt", "special_tokens_map.json")


@dataclass(frozen=True)
class ModelFiles:
    """What is known of a language model before its weights are read.

    This is enough to refuse a model that cannot work, and it keeps the directory open: whoever
    wants the manifest or the tensors' names takes them from `opened`.

    Attributes
    ----------
    name : str
        What the user called the model.
    directory : Path
        The directory on this machine.
    config : transformers.PretrainedConfig
        The content of config.json.
    tokenizer : transformers.PreTrainedTokenizerBase
        The model's own tokenizer.
    opened : ModelDirectory or CompressedDirectory
        The directory as a dense checkpoint, or as what isotone wrote.
    """

    name: str
    directory: Path
    config: transformers.PretrainedConfig
    tokenizer: transformers.PreTrainedTokenizerBase
    opened: ModelDirectory | CompressedDirectory

    @classmethod
    def of(
        cls, opened: ModelDirectory | CompressedDirectory, name: str | None = None
    ) -> ModelFiles:
        """Read the config and the tokenizer of a directory that is open already.

        Parameters
        ----------
        opened : ModelDirectory or CompressedDirectory
            The directory, on this machine.
        name : str, optional
            What the user calls the model; the directory's path by default.

        Returns
        -------
        ModelFiles
            The files of the model.

        Raises
        ------
        InputError
            If transformers cannot use the config or the tokenizer, or there is no tokenizer.
        """
        directory = opened.path if isinstance(opened, CompressedDirectory) else opened.directory
        config, tokenizer = load_config(directory), load_tokenizer(directory)
        return cls(str(directory) if name is None else name, directory, config, tokenizer, opened)

    @property
    def clustered(self) -> CompressedDirectory | None:
        """The open compressed directory; None for a dense model."""
        return self.opened if isinstance(self.opened, CompressedDirectory) else None

    @property
    def dense(self) -> ModelDirectory | None:
        """The open dense checkpoint; None for a clustered model."""
        return self.opened if isinstance(self.opened, ModelDirectory) else None

    @property
    def vocabulary_size(self) -> int:
        """The number of rows of the embedding, which may exceed the tokenizer's vocabulary."""
        return int(self.config.get_text_config().vocab_size)

    @property
    def max_positions(self) -> int | None:
        """The longest context in tokens that the model is made for; None where nothing says."""
        value = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        return int(value) if value else None


def open_files(model: str | Path) -> ModelFiles:
    """Find a dense or clustered model, and read its config and tokenizer.

    No weights are read; the shards' headers and, of a compressed directory, the manifest and the
    format version are checked.

    Parameters
    ----------
    model : str or Path
        A model directory on this machine, or a hub id.

    Returns
    -------
    ModelFiles
        The files of the model, its directory open.

    Raises
    ------
    InputError
        If there is no such model, or transformers cannot run it.
    FormatError
        If a file of it is damaged, or of another version.
    """
    return ModelFiles.of(_open_directory(model), str(model))


def load_config(directory: Path) -> transformers.PretrainedConfig:
    """Read the config of a model directory.

    Parameters
    ----------
    directory : Path
        The directory, on this machine.

    Returns
    -------
    transformers.PretrainedConfig
        The config.

    Raises
    ------
    InputError
        If transformers does not know the architecture, or only by code that comes with the model,
        or cannot read the file.
    """
    with transformers_errors(f"{directory / CONFIG_FILE}: transformers cannot use it"):
        return transformers.AutoConfig.from_pretrained(
            directory, trust_remote_code=False, local_files_only=True
        )


def load_tokenizer(directory: Path) -> transformers.PreTrainedTokenizerBase:
    """Read the tokenizer of a model directory.

    Parameters
    ----------
    directory : Path
        The directory, on this machine.

    Returns
    -------
    transformers.PreTrainedTokenizerBase
        The tokenizer.

    Raises
    ------
    InputError
        If there is none, or transformers cannot read it.
    """
    if not any((directory / name).is_file() for name in _TOKENIZER_FILES):
        raise InputError(
            f"{directory}: has no tokenizer; expected {_TOKENIZER_FILES[0]} beside {CONFIG_FILE} "
            "(copy it from the original model)"
        )
    for name in (*_TOKENIZER_FILES, *_BESIDE_TOKENIZER):
        if (directory / name).is_file():
            refuse_pointer_file(directory / name)
    with transformers_errors(f"{directory}: its tokenizer cannot be loaded"):
        return transformers.AutoTokenizer.from_pretrained(
            directory, trust_remote_code=False, local_files_only=True
        )


def _open_directory(model: str | Path) -> ModelDirectory | CompressedDirectory:
    """Open the directory that a user means, if transformers can run what it holds."""
    directory = locate(model)
    if is_remote(directory):
        raise InputError(
            f"{model}: is in an object store, and transformers loads models from this machine's "
            "disks; fetch it first"
        )
    if directory.is_file():
        raise InputError(
            f"{model}: is a file; expected a model directory (isotone compress makes one of a "
            ".gguf file)"
        )
    if directory.is_dir() and not (directory / CONFIG_FILE).is_file():
        raise InputError(f"{directory}: has no {CONFIG_FILE}; expected a model directory")
    if _is_clustered(directory):
        return open_compressed(directory)
    source = open_source(model)
    assert isinstance(source, ModelDirectory)  # files are refused above
    if "model_type" not in source.config:
        path = source.directory / CONFIG_FILE
        raise InputError(f"{path}: names no model_type, so transformers cannot tell what it is")
    return source


def _is_clustered(directory: Path) -> bool:
    """Return whether a folder is isotone's and holds clustered weights, or none that are whole."""
    config = read_json(directory / CONFIG_FILE)
    named = "isotone" in str(config.get("quantization_config"))
    if not named and not (directory / MANIFEST_FILE).is_file():
        return False
    weights = find_weight_files(directory, config)
    return weights is None or not hold_dense_weights(weights.shards)
