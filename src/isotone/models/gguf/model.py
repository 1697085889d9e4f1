"""What transformers makes of the header of a GGUF file: config, tokenizer, names and shapes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from isotone.checkpoint.gguf.file import GgufFile
from isotone.checkpoint.gguf.header import GgufTensor
from isotone.checkpoint.source.source import CompanionFile
from isotone.core.float_format import FloatFormat
from isotone.errors import InputError
from isotone.models.gguf.tensors import stored_format
from isotone.models.transformers_calls import require_transformers, transformers_errors

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
    from transformers.modeling_gguf_pytorch_utils import TensorProcessor

_DTYPE_NAMES = {
    FloatFormat.BF16: "bfloat16",
    FloatFormat.F16: "float16",
    FloatFormat.F32: "float32",
}
# Byte-pair vocabularies for which llama.cpp begins a text with the beginning-of-sequence token if
# the file has no flag for it. Transformers follows the flag, and has this rule for SentencePiece.
_BEGIN_WITHOUT_FLAG = {
    *("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
    *("tekken", "chameleon"),
}
_LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layer")


@dataclass(frozen=True)
class GgufModel:
    """What transformers makes of a file's header.

    Attributes
    ----------
    class_name : str
        The class of the model.
    config_json : dict
        The content of its config.json.
    companions : list of CompanionFile
        Its tokenizer and generation config.
    names : dict of str to str
        The names of tensors, from GGUF's to those of transformers.
    shapes : dict of str to tuple of int
        The shapes of all tensors that the model would load.
    parameters : set of str
        The tensors that it cannot do without.
    processor : TensorProcessor
        Undoes what the conversion to GGUF did to some tensors.
    moves_rows_at_most : bool
        Whether the processor does no more than reorder rows.
    """

    class_name: str
    config_json: dict[str, Any]
    companions: list[CompanionFile]
    names: Mapping[str, str]
    shapes: dict[str, tuple[int, ...]]
    parameters: set[str]
    processor: TensorProcessor
    moves_rows_at_most: bool


def read_model(file: GgufFile) -> GgufModel:
    """Ask transformers what a file's header describes.

    Parameters
    ----------
    file : GgufFile
        The open file.

    Returns
    -------
    GgufModel
        The description.

    Raises
    ------
    InputError
        If transformers cannot read the file, or does not know its architecture.
    MissingExtraError
        If transformers is not installed.

    Notes
    -----
    No weights are read. It takes seconds, most of them for the vocabulary.
    """
    architecture = file.architecture
    loader = _transformers_loader()
    failure = (
        f"{file.path}: transformers cannot read this GGUF file of architecture {architecture!r}"
    )
    with transformers_errors(failure, "take the model's safetensors files if there are any"):
        return _load_model(file, loader)


def _transformers_loader() -> ModuleType:
    require_transformers("reading a GGUF model")
    import transformers

    try:
        from transformers import modeling_gguf_pytorch_utils as loader
    except ImportError as error:
        raise InputError(
            f"transformers {transformers.__version__} has no modeling_gguf_pytorch_utils, which "
            "reading a GGUF model needs; install transformers 5.23"
        ) from error
    module: ModuleType = loader
    return module


def _load_model(file: GgufFile, loader: ModuleType) -> GgufModel:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    raw_config = loader.load_gguf_checkpoint(str(file.path))["config"]
    for key in _LAYER_COUNTS:
        # Checked before anything is built for every layer that the file claims.
        if raw_config.get(key, 0) > len(file.tensors):
            raise InputError(
                f"{file.path}: claims {raw_config[key]} layers and has {len(file.tensors)} tensors"
            )
    config = _newer_config(file) or AutoConfig.for_model(**raw_config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    processor_type = loader.TENSOR_PROCESSORS.get(file.architecture, loader.TensorProcessor)
    processor = processor_type(raw_config)
    tied = set(model.all_tied_weights_keys)
    return GgufModel(
        class_name=type(model).__name__,
        config_json=_config_json(model, _model_format(file.tensors)),
        companions=_companions(file, model),
        names=loader.get_gguf_hf_weights_map(_Outline(model, 2), processor),
        shapes={name: tuple(tensor.shape) for name, tensor in model.state_dict().items()},
        parameters={name for name, _ in model.named_parameters(remove_duplicate=False)} - tied,
        processor=processor,
        moves_rows_at_most=processor_type is loader.LlamaTensorProcessor,
    )


def _newer_config(file: GgufFile) -> PreTrainedConfig | None:
    """Read the config as transformers 5.23 does for some architectures; None for the others."""
    from transformers import AutoConfig

    try:
        from transformers.integrations.gguf import GGUF_CONFIG_ARCHS
    except ImportError:
        return None
    if file.architecture not in GGUF_CONFIG_ARCHS:
        return None
    return AutoConfig.from_pretrained(str(file.path.parent), gguf_file=file.path.name)


class _Outline:
    """The upper modules of a model, for transformers' map of names.

    That map asks every module what its parameters would be called, although only those of a model
    and its base model can have names, and prepares the names of all layers for every question.
    """

    def __init__(self, module: torch.nn.Module, depth: int) -> None:
        self.config = getattr(module, "config", None)
        self.state_dict = module.state_dict
        self._module = module
        self._depth = depth

    def named_children(self) -> list[tuple[str, _Outline]]:
        children = self._module.named_children() if self._depth else ()
        return [(name, _Outline(child, self._depth - 1)) for name, child in children]


def _companions(file: GgufFile, model: PreTrainedModel) -> list[CompanionFile]:
    """Return the tokenizer's files and the generation config, as transformers writes them."""
    with tempfile.TemporaryDirectory(prefix="isotone-gguf-") as name:
        isolated, out = Path(name, "isolated"), Path(name, "out")
        # In a folder of its own, so that no tokenizer beside the file is taken for the file's own.
        isolated.mkdir()
        (isolated / "model.gguf").symlink_to(file.path.resolve())
        kind = _tokenizer_kind(model.config)
        tokenizer = kind.from_pretrained(str(isolated), gguf_file="model.gguf")
        if _begins_without_flag(file) and tokenizer.bos_token is not None:
            tokenizer.add_bos_token = True
        tokenizer.save_pretrained(out)
        if model.can_generate():
            model.generation_config.save_pretrained(out)
        return [
            CompanionFile(path.relative_to(out).as_posix(), path.read_bytes())
            for path in sorted(out.rglob("*"))
            if path.is_file()
        ]


def _begins_without_flag(file: GgufFile) -> bool:
    unsaid = "tokenizer.ggml.add_bos_token" not in file.metadata
    return unsaid and file.metadata.get("tokenizer.ggml.pre") in _BEGIN_WITHOUT_FLAG


def _tokenizer_kind(config: PreTrainedConfig) -> type[PreTrainedTokenizerFast]:
    """Choose as AutoTokenizer would, which would read the whole file again to know the config."""
    from transformers import TOKENIZER_MAPPING, AutoTokenizer, PreTrainedTokenizerFast

    kind: type[PreTrainedTokenizerFast] = TOKENIZER_MAPPING.get(
        type(config), PreTrainedTokenizerFast
    )
    # The few others are chosen by more than the config, so they are left to AutoTokenizer.
    return kind if issubclass(kind, PreTrainedTokenizerFast) else AutoTokenizer


def _config_json(model: PreTrainedModel, dtype: FloatFormat) -> dict[str, Any]:
    """Return the content of config.json, without what holds for this machine only."""
    content: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=True))
    for runtime_only in ("_name_or_path", "_model_name_or_path"):
        content.pop(runtime_only, None)
    content["architectures"] = [type(model).__name__]
    content["dtype"] = _DTYPE_NAMES[dtype]
    content["tie_word_embeddings"] = bool(model.config.tie_word_embeddings)
    return dict(sorted(content.items()))


def _model_format(tensors: Sequence[GgufTensor]) -> FloatFormat:
    """Return the float format that config.json names as the model's dtype."""
    formats = {stored_format(tensor) for tensor in tensors}
    # Norms are kept in F32 beside weights of 16 bits, so the half precision format is the model's.
    halves = (FloatFormat.BF16, FloatFormat.F16)
    return next((each for each in halves if each in formats), FloatFormat.F32)
