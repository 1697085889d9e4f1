"""A GGUF file as a Source: the model that transformers would make of it, read in pieces.

What transformers knows is asked of transformers: the config, the tokenizer, the names, and the row
order (its `TENSOR_PROCESSORS` undo what the conversion to GGUF did to some tensors). isotone brings
the reading: transformers would hold the whole model in float32, here a range of a tensor is read at
a time. The result has the names, shapes and row order of
`AutoModelForCausalLM.from_pretrained(DIR, gguf_file=NAME)`.

Dtypes. A tensor in quantised blocks comes out as BF16: dequantised in float32, then rounded once, to
nearest even; config.json then says `dtype: bfloat16`. A tensor of F32, F16 or BF16 keeps its dtype
and its bits, unless its processor computes with it (Gemma's `norm - 1`): then it is F32.

Memory. Most tensors, Llama's reordered queries and keys, and stacks of experts take memory in
proportion to the range that is read (and two attention heads at most). The rarer processors (GPT-2's
transposes, Bloom's fused attention, Mamba, the norms of Gemma) see the whole tensor, for every range
anew: nothing is kept.

What is refused, with one line: an architecture that transformers' loader of GGUF tensors does not
know, one whose tensors do not fill its model, and types that the gguf package cannot dequantise.
Tensors that have no name in transformers (`rope_freqs.weight`) are left out, as transformers leaves
them out, and are listed in `skipped`.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.gguf_file import GgufFile, GgufTensor
from isotone.checkpoint.model_directory import files_identity
from isotone.checkpoint.source import CompanionFile, TensorInfo
from isotone.core.float_format import FloatFormat
from isotone.errors import InputError, IsotoneError, MissingExtraError
from isotone.models.gguf_tensors import (
    GateUp,
    StoredTensor,
    TensorReader,
    processed_tensor,
    reordered_rows,
    stored_format,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.modeling_gguf_pytorch_utils import TensorProcessor

_DTYPE_NAMES = {
    FloatFormat.BF16: "bfloat16",
    FloatFormat.F16: "float16",
    FloatFormat.F32: "float32",
}
_LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layer")
_EXPERTS = re.compile(r"(blk\.\d+\.ffn_(gate|up|down)_exps)\.weight")


class GgufSource:
    """A GGUF file, read only. `skipped` names the tensors that transformers has no place for."""

    def __init__(
        self,
        file: GgufFile,
        readers: Mapping[str, TensorReader],
        model: _Model,
        skipped: Sequence[str],
    ) -> None:
        self.file = file
        self.config = model.config_json
        self.companions: Sequence[CompanionFile] = model.companions
        self.skipped = skipped
        self.tensors: Sequence[TensorInfo] = [
            TensorInfo(name, reader.format.value, reader.shape) for name, reader in readers.items()
        ]
        self._readers = readers

    @property
    def n_bytes(self) -> int:
        return self.file.n_bytes

    def read(self, tensor: TensorInfo, start: int, stop: int) -> NDArray[np.uint8]:
        bits = self._readers[tensor.name].read(self.file, start, stop)
        return np.ascontiguousarray(bits).view(np.uint8)

    def identity(self) -> dict[str, Any]:
        return files_identity([self.file.path])


def open_gguf(path: Path) -> GgufSource:
    """A GGUF file as a dense checkpoint, complete with config.json and tokenizer.

    Takes seconds, most of them transformers' reading of the vocabulary (twice, it has no way to give
    config and tokenizer at once); reads no weights. Raises FormatError where the file is damaged,
    InputError where transformers cannot make a model of it, MissingExtraError without transformers.
    """
    file = GgufFile.open(path)
    architecture = file.architecture
    loader = _transformers_loader()
    try:
        model = _load_model(file, loader)
    except IsotoneError:
        raise
    except Exception as error:  # their parser over a foreign file: it can raise anything
        raise InputError(
            f"{path}: transformers cannot read this GGUF file of architecture {architecture!r}: "
            f"{_one_line(error)}; take the model's safetensors files if there are any"
        ) from error
    sources, skipped = _by_name(file, model)
    _check_scales(file, skipped)
    readers = {name: _reader(file, name, tensors, model) for name, tensors in sources.items()}
    _check_fit(file, model, readers)
    return GgufSource(file, readers, model, skipped)


@dataclass(frozen=True)
class _Model:
    """What transformers makes of a file's header."""

    class_name: str
    config_json: dict[str, Any]
    companions: list[CompanionFile]
    names: Mapping[str, str]  # of tensors, from GGUF to transformers
    shapes: dict[str, tuple[int, ...]]  # of all tensors that the model would load
    parameters: set[str]  # those that it cannot do without
    processor: TensorProcessor
    moves_rows_at_most: bool


def _transformers_loader() -> ModuleType:
    try:
        import torch  # noqa: F401  transformers imports without it, and then lacks the models
        import transformers
    except ImportError as error:
        raise MissingExtraError("reading a GGUF model", "models") from error
    try:
        from transformers import modeling_gguf_pytorch_utils as loader
    except ImportError as error:
        raise InputError(
            f"transformers {transformers.__version__} has no modeling_gguf_pytorch_utils, which "
            "reading a GGUF model needs; install transformers 5.23"
        ) from error
    return loader


def _load_model(file: GgufFile, loader: ModuleType) -> _Model:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    raw_config = loader.load_gguf_checkpoint(str(file.path))["config"]
    for key in _LAYER_COUNTS:
        # Checked before anything is built for every layer that the file claims.
        if raw_config.get(key, 0) > len(file.tensors):
            raise InputError(
                f"{file.path}: claims {raw_config[key]} layers and has {len(file.tensors)} tensors"
            )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**raw_config))
    processor_type = loader.TENSOR_PROCESSORS.get(file.architecture, loader.TensorProcessor)
    processor = processor_type(raw_config)
    tied = set(model.all_tied_weights_keys)
    return _Model(
        class_name=type(model).__name__,
        config_json=_config_json(model, _model_format(file.tensors)),
        companions=_companions(file.path, model),
        names=loader.get_gguf_hf_weights_map(model, processor),
        shapes={name: tuple(tensor.shape) for name, tensor in model.state_dict().items()},
        parameters={name for name, _ in model.named_parameters(remove_duplicate=False)} - tied,
        processor=processor,
        moves_rows_at_most=processor_type is loader.LlamaTensorProcessor,
    )


def _companions(path: Path, model: PreTrainedModel) -> list[CompanionFile]:
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory(prefix="isotone-gguf-") as name:
        alone, out = Path(name, "alone"), Path(name, "out")
        # Alone in a folder, so that no tokenizer beside the file is taken for the file's own.
        alone.mkdir()
        (alone / "model.gguf").symlink_to(path.resolve())
        AutoTokenizer.from_pretrained(str(alone), gguf_file="model.gguf").save_pretrained(out)
        if model.can_generate():
            model.generation_config.save_pretrained(out)
        return [
            CompanionFile(file.relative_to(out).as_posix(), file.read_bytes())
            for file in sorted(out.rglob("*"))
            if file.is_file()
        ]


def _config_json(model: PreTrainedModel, dtype: FloatFormat) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=True))
    for runtime_only in ("_name_or_path", "_model_name_or_path"):
        content.pop(runtime_only, None)
    content["architectures"] = [type(model).__name__]
    content["dtype"] = _DTYPE_NAMES[dtype]
    content["tie_word_embeddings"] = bool(model.config.tie_word_embeddings)
    return dict(sorted(content.items()))


def _model_format(tensors: Sequence[GgufTensor]) -> FloatFormat:
    formats = {stored_format(tensor) for tensor in tensors}
    # Norms are kept in F32 beside weights of 16 bits, so the narrower format is the model's.
    narrow = (FloatFormat.BF16, FloatFormat.F16)
    return next((each for each in narrow if each in formats), FloatFormat.F32)


def _one_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _by_name(file: GgufFile, model: _Model) -> tuple[dict[str, list[GgufTensor]], list[str]]:
    """The tensors of the file by the name of the one that they make, and the names of the rest."""
    sources: dict[str, list[GgufTensor]] = {}
    skipped = []
    for tensor in file.tensors:
        # transformers keeps experts in a parameter of its own, whose name has no suffix.
        experts = _EXPERTS.fullmatch(tensor.name)
        name = model.names.get(tensor.name) or (model.names.get(experts[1]) if experts else None)
        if name in model.shapes:
            sources.setdefault(name, []).append(tensor)
        else:
            skipped.append(tensor.name)
    return sources, skipped


def _reader(file: GgufFile, name: str, tensors: list[GgufTensor], model: _Model) -> TensorReader:
    for tensor in tensors:
        if not tensor.is_readable:
            raise InputError(
                f"{file.path}: {tensor.name} is of type {tensor.type.name}, which the gguf package "
                "cannot dequantise; take a file of another type"
            )
    if len(tensors) > 1:
        return _merged(file, name, tensors)
    tensor = tensors[0]
    # No processor changes these two kinds, but some hand them over in ways of their own.
    if _EXPERTS.fullmatch(tensor.name) or tensor.name == "output.weight":
        return StoredTensor(tensor)
    if model.moves_rows_at_most:
        return reordered_rows(tensor, model.processor)
    return processed_tensor(tensor, model.processor)


def _merged(file: GgufFile, name: str, tensors: list[GgufTensor]) -> TensorReader:
    parts = {match[2]: part for part in tensors if (match := _EXPERTS.fullmatch(part.name))}
    gate, up = parts.get("gate"), parts.get("up")
    if (
        gate is None
        or up is None
        or len(tensors) != 2
        or len(gate.shape) != 3
        or gate.shape != up.shape
        or stored_format(gate) is not stored_format(up)
    ):
        found = ", ".join(f"{part.name} {list(part.shape)} {part.type.name}" for part in tensors)
        raise InputError(
            f"{file.path}: {name} would have to be made of {found}; only two stacks of experts of "
            f"one shape and kind can be merged (architecture {file.architecture!r})"
        )
    return GateUp(gate, up)


def _check_scales(file: GgufFile, skipped: Sequence[str]) -> None:
    """Refuse weights that a tensor of their own scales: transformers would leave the scale out."""
    names = {tensor.name for tensor in file.tensors}
    for name in skipped:
        if name.endswith(".scale") and f"{name.removesuffix('.scale')}.weight" in names:
            raise InputError(f"{file.path}: scales a matrix by {name}, which isotone does not read")


def _check_fit(file: GgufFile, model: _Model, readers: Mapping[str, TensorReader]) -> None:
    """Raise InputError where a tensor of the model is missing from the file, or misshapen."""
    missing = sorted(model.parameters - set(readers))
    if missing:
        raise InputError(
            f"{file.path}: has nothing for {missing[0]} and {len(missing) - 1} more of the "
            f"{len(model.parameters)} parameters of {model.class_name}; the file is incomplete, or "
            f"transformers does not support architecture {file.architecture!r} in full"
        )
    for name, reader in readers.items():
        if reader.shape != model.shapes[name]:
            raise InputError(
                f"{file.path}: has {name} in shape {list(reader.shape)}; transformers expects "
                f"{list(model.shapes[name])} from the file's metadata"
            )
