"""Opens a model to run it: found, checked and loaded, or refused in one clear line.

A clustered directory loads as a dense one does: importing any module of isotone has told
transformers how (see models/registration.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils import logging

from isotone.checkpoint.compressed.manifest import MANIFEST_FILE
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.files.location import is_remote, locate
from isotone.checkpoint.source.model_directory import CONFIG_FILE, ModelDirectory, read_json
from isotone.errors import InputError, IsotoneError
from isotone.models.open_source import open_source
from isotone.models.plugin.quantizer import IsotoneConfig
from isotone.models.windows import Tokens

DTYPES = ("float32", "bfloat16", "float16", "auto")

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


@dataclass(frozen=True)
class ModelFiles:
    """What is known of a model before its weights are read: enough to refuse what cannot work."""

    name: str
    directory: Path
    config: transformers.PretrainedConfig
    tokenizer: transformers.PreTrainedTokenizerBase

    @property
    def vocabulary_size(self) -> int:
        """Entries of the embedding, which may be more than the tokenizer's."""
        return int(self.config.get_text_config().vocab_size)

    @property
    def max_positions(self) -> int | None:
        """The longest context the model is made for, None where its config names none."""
        value = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        return int(value) if value else None


def open_files(model: str | Path) -> ModelFiles:
    """Find a model, and read its config and tokenizer. Raises InputError and FormatError."""
    directory = find_model(model)
    try:
        config = transformers.AutoConfig.from_pretrained(
            directory, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # transformers raises most kinds, for most causes
        raise InputError(
            f"{directory / CONFIG_FILE}: transformers cannot use it: {_reason(error)}"
        ) from error
    return ModelFiles(str(model), directory, config, load_tokenizer(directory))


def find_model(model: str | Path) -> Path:
    """The directory of a dense or clustered model, or of a hub id's download.

    Reads no weights: checks the config, the shards' headers and, of a clustered directory, its
    manifest and format version. Raises InputError and FormatError.
    """
    directory = locate(model)
    if is_remote(directory):
        raise InputError(
            f"{model}: is in a store, and transformers loads from this machine's disks; fetch it "
            "first"
        )
    if directory.is_file():
        raise InputError(
            f"{model}: is a file; expected a model directory (isotone compress makes one of a "
            ".gguf file)"
        )
    if directory.is_dir() and not (directory / CONFIG_FILE).is_file():
        raise InputError(f"{directory}: has no {CONFIG_FILE}; expected a model directory")
    if (directory / MANIFEST_FILE).is_file() or _is_clustered(directory):
        return CompressedDirectory.open(directory).path
    source = open_source(model)
    assert isinstance(source, ModelDirectory)  # files are refused above
    if "model_type" not in source.config:
        path = source.directory / CONFIG_FILE
        raise InputError(f"{path}: names no model_type, so transformers cannot tell what it is")
    return source.directory


def load_tokenizer(directory: Path) -> transformers.PreTrainedTokenizerBase:
    """The tokenizer of a model directory; raises InputError where it is missing or unreadable."""
    if not any((directory / name).is_file() for name in _TOKENIZER_FILES):
        raise InputError(
            f"{directory}: has no tokenizer; expected {_TOKENIZER_FILES[0]} beside {CONFIG_FILE} "
            "(copy it from the original model)"
        )
    try:
        return transformers.AutoTokenizer.from_pretrained(
            directory, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # whatever a broken file makes tokenizers raise
        raise InputError(
            f"{directory}: its tokenizer cannot be loaded: {_reason(error)}"
        ) from error


def load_model(
    files: ModelFiles, *, dtype: str = "float32", device: str = "cpu", residency: str = "dense"
) -> transformers.PreTrainedModel:
    """The causal language model of transformers that the files hold, in evaluation mode.

    dtype: one of DTYPES, `auto` being that of the file. device: as torch names it, "cuda" say.
    residency: of a clustered model, see plugin.IsotoneConfig; a dense one knows only `dense`.
    Raises InputError where transformers cannot load it, or where weights are missing, which
    transformers would make up.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
    options: dict[str, Any] = {}
    if _device(device).type != "cpu":
        options["device_map"] = {"": device}
    if residency != "dense":
        options["quantization_config"] = IsotoneConfig(residency=residency)
    try:
        with _quietly():
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                files.directory,
                dtype=dtype,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except IsotoneError:
        raise
    except Exception as error:  # as above
        raise InputError(
            f"{files.directory}: transformers cannot load it as a language model: {_reason(error)}"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(
            f"{files.directory}: lacks {len(missing)} of the model's tensors, {missing[0]} for "
            "one; it is incomplete, or not a causal language model"
        )
    return model.eval()


def check_context(model: ModelFiles, n_tokens: int, what: str) -> None:
    """Raise InputError where so many tokens are more than the model has positions for."""
    limit = model.max_positions
    if limit is not None and n_tokens > limit:
        raise InputError(f"{what}: {n_tokens} tokens, and {model.name} takes at most {limit}")


def check_tokens(model: ModelFiles, tokens: Tokens) -> None:
    """Raise InputError where a token has no row in the model's embedding."""
    highest = int(tokens.max(initial=0))
    if highest >= model.vocabulary_size:
        raise InputError(
            f"{model.directory}: its tokenizer gives token {highest}, and the model has "
            f"{model.vocabulary_size}; the tokenizer belongs to another model"
        )


def check_same_vocabulary(model: ModelFiles, reference: ModelFiles) -> None:
    """Raise InputError where a token id may mean different things to the two."""
    if model.vocabulary_size != reference.vocabulary_size:
        raise InputError(
            f"{reference.name}: has a vocabulary of {reference.vocabulary_size} and {model.name} "
            f"one of {model.vocabulary_size}; the reference must share the model's vocabulary"
        )
    if model.tokenizer.get_vocab() != reference.tokenizer.get_vocab():
        raise InputError(
            f"{reference.name}: its tokenizer is not that of {model.name}; the reference must "
            "share the model's vocabulary"
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """Transformers without its bar and its table of what is missing, which is said in one line."""
    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()


def _is_clustered(directory: Path) -> bool:
    return "isotone" in str(read_json(directory / CONFIG_FILE).get("quantization_config"))


def _device(device: str) -> torch.device:
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r}: is not there: {_reason(error)}") from error
    return place


def _reason(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
