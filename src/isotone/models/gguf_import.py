"""A GGUF file as a Source: the model that transformers would make of it, read tensor by tensor.

What transformers knows is asked of transformers: the config, the tokenizer, the names, and the row
order (its `TENSOR_PROCESSORS` undo what the conversion to GGUF did to some tensors). isotone brings
the reading: transformers would hold the whole model in float32, here a range of a tensor is read at
a time. The result has the names, shapes and row order of
`AutoModelForCausalLM.from_pretrained(DIR, gguf_file=NAME)`.

Dtypes. A tensor in quantised blocks comes out as BF16: dequantised in float32, then rounded once, to
nearest even; config.json then says `dtype: bfloat16`. A tensor of F32, F16 or BF16 keeps its dtype
and its bits, unless its processor computes with it (Gemma's `norm - 1`): then it is F32.

Memory. Most tensors, Llama's reordered queries and keys, and stacks of experts take memory in
proportion to the range that is read (and at most one attention head more). The rarer processors
(GPT-2's transposes, Bloom's fused attention, Mamba, norms of Gemma) see the whole tensor, for every
range anew: nothing is kept.

What is refused, with one line: an architecture that transformers' GGUF loader does not know, one
whose tensors do not fill its model, and types that the gguf package cannot dequantise. Tensors that
have no name in transformers (`rope_freqs.weight`) are left out, as transformers leaves them out, and
are listed in `skipped`.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.gguf_file import GgufFile, GgufTensor
from isotone.checkpoint.model_directory import files_identity
from isotone.checkpoint.source import CompanionFile, TensorInfo
from isotone.core.float_format import Bits, FloatFormat
from isotone.errors import InputError, MissingExtraError

_CHUNK = 1 << 15
"""Weights that are dequantised and rounded at a time: what stays in a core's cache. Whole blocks."""
_PROBE = np.float32(-2)
_DTYPE_NAMES = {
    FloatFormat.BF16: "bfloat16",
    FloatFormat.F16: "float16",
    FloatFormat.F32: "float32",
}
_EXPERTS = re.compile(r"(blk\.\d+\.ffn_(gate|up|down)_exps)\.weight")


class _Reader(Protocol):
    """How one tensor of transformers comes out of the file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def format(self) -> FloatFormat: ...

    def read(self, file: GgufFile, start: int, stop: int) -> Bits: ...


class GgufSource:
    """A GGUF file, read only. `skipped` names the tensors that transformers has no place for."""

    def __init__(
        self,
        file: GgufFile,
        readers: Mapping[str, _Reader],
        config: dict[str, Any],
        companions: Sequence[CompanionFile],
        skipped: Sequence[str],
    ) -> None:
        self.file = file
        self.config = config
        self.companions = companions
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

    Takes seconds, most of them transformers' reading of the vocabulary, and no weights. Raises
    FormatError where the file is damaged, InputError where transformers cannot make a model of it,
    MissingExtraError without transformers.
    """
    file = GgufFile.open(path)
    architecture = file.architecture
    transformers, loader = _transformers()
    try:
        raw_config = loader.load_gguf_checkpoint(str(path))["config"]
        config = transformers.AutoConfig.for_model(**raw_config)
        model = _meta_model(transformers, config)
        processor = loader.TENSOR_PROCESSORS.get(architecture, loader.TensorProcessor)(raw_config)
        names = loader.get_gguf_hf_weights_map(model, processor)
        companions = _companions(transformers, path, model)
    except Exception as error:  # a parser of others, over a file of others: anything can come
        raise InputError(
            f"{path}: transformers cannot load this GGUF file of architecture {architecture!r}: "
            f"{_one_line(error)}"
        ) from error
    sources, skipped = _by_name(file, names)
    readers = {
        name: _reader(file, name, tensors, processor, names) for name, tensors in sources.items()
    }
    skipped += _check_fit(file, model, readers)
    dtype = _model_format([tensor for tensors in sources.values() for tensor in tensors])
    return GgufSource(file, readers, _config_json(model, dtype), companions, skipped)


def _transformers() -> tuple[Any, Any]:
    try:
        import torch  # noqa: F401  transformers imports without it, and then lacks the models
        import transformers
        from transformers import modeling_gguf_pytorch_utils as loader
    except ImportError as error:
        raise MissingExtraError("reading a GGUF model", "models") from error
    return transformers, loader


def _meta_model(transformers: Any, config: Any) -> Any:  # noqa: ANN401
    import torch

    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config)


def _companions(transformers: Any, path: Path, model: Any) -> list[CompanionFile]:  # noqa: ANN401
    with tempfile.TemporaryDirectory(prefix="isotone-gguf-") as name:
        folder = Path(name)
        # Alone in a folder, so that no tokenizer beside the file is taken for the file's own.
        (folder / "in").mkdir()
        (folder / "in" / "model.gguf").symlink_to(path.resolve())
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(folder / "in"), gguf_file="model.gguf"
        )
        tokenizer.save_pretrained(folder / "out")
        if model.can_generate():
            model.generation_config.save_pretrained(folder / "out")
        return [
            CompanionFile(file.relative_to(folder / "out").as_posix(), file.read_bytes())
            for file in sorted((folder / "out").rglob("*"))
            if file.is_file()
        ]


def _config_json(model: Any, dtype: FloatFormat) -> dict[str, Any]:  # noqa: ANN401
    content: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=True))
    for runtime_only in ("_name_or_path", "_model_name_or_path"):
        content.pop(runtime_only, None)
    content["architectures"] = [type(model).__name__]
    content["dtype"] = _DTYPE_NAMES[dtype]
    content["tie_word_embeddings"] = bool(model.config.tie_word_embeddings)
    return content


def _model_format(tensors: Sequence[GgufTensor]) -> FloatFormat:
    formats = {tensor.float_format for tensor in tensors}
    if None in formats or FloatFormat.BF16 in formats:
        return FloatFormat.BF16
    # Norms are kept in F32 beside weights of 16 bits, so the narrower format is the model's.
    return FloatFormat.F16 if FloatFormat.F16 in formats else FloatFormat.F32


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _by_name(
    file: GgufFile, names: Mapping[str, str]
) -> tuple[dict[str, list[GgufTensor]], list[str]]:
    sources: dict[str, list[GgufTensor]] = {}
    skipped = []
    for tensor in file.tensors:
        # transformers keeps experts in a parameter of its own, without the suffix.
        experts = _EXPERTS.fullmatch(tensor.name)
        name = names.get(tensor.name) or (names.get(experts[1]) if experts else None)
        if name is None:
            skipped.append(tensor.name)
        else:
            sources.setdefault(name, []).append(tensor)
    return sources, skipped


def _check_fit(file: GgufFile, model: Any, readers: dict[str, _Reader]) -> list[str]:  # noqa: ANN401
    """Drop what the model has no place for; InputError where a tensor is missing or misshapen."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    extra = [name for name in readers if name not in shapes]
    for name in extra:
        del readers[name]
    tied = getattr(model, "all_tied_weights_keys", {})
    needed = {name for name, _ in model.named_parameters(remove_duplicate=False)} - set(tied)
    missing = sorted(needed - set(readers))
    if missing:
        raise InputError(
            f"{file.path}: transformers finds no tensor for {missing[0]} and {len(missing) - 1} "
            f"others of {type(model).__name__}; architecture {file.architecture!r} is not supported"
        )
    for name, reader in readers.items():
        if reader.shape != shapes[name]:
            raise InputError(
                f"{file.path}: {name} has shape {list(reader.shape)}; transformers expects "
                f"{list(shapes[name])} from the file's metadata"
            )
    return extra


def _reader(
    file: GgufFile, name: str, tensors: list[GgufTensor], processor: Any, names: Mapping[str, str]  # noqa: ANN401
) -> _Reader:
    for tensor in tensors:
        if not tensor.is_readable:
            raise InputError(
                f"{file.path}: {tensor.name} is of type {tensor.type.name}, which the gguf package "
                "cannot dequantise; take a file in another quantisation"
            )
    if len(tensors) > 1:
        return _merged(file, name, tensors)
    tensor = tensors[0]
    if _EXPERTS.fullmatch(tensor.name) or tensor.name == "output.weight":
        return _Rows(tensor, None)  # GPT-2's processor would hand it over in a way of its own
    if type(processor).__name__ == "LlamaTensorProcessor":
        return _Rows(tensor, _row_order(processor, tensor))
    return _processed(processor, tensor)


def _merged(file: GgufFile, name: str, tensors: list[GgufTensor]) -> _Reader:
    by_kind = {match[2]: t for t in tensors if (match := _EXPERTS.fullmatch(t.name))}
    if set(by_kind) != {"gate", "up"} or len(tensors) != 2:
        parts = ", ".join(tensor.name for tensor in tensors)
        raise InputError(
            f"{file.path}: {name} is made of {parts}; isotone cannot merge these for architecture "
            f"{file.architecture!r}"
        )
    gate, up = by_kind["gate"], by_kind["up"]
    if gate.shape != up.shape or len(gate.shape) != 3 or _format(gate) != _format(up):
        raise InputError(f"{file.path}: {gate.name} and {up.name} differ in shape or kind")
    return _GateUp(gate, up)


def _format(tensor: GgufTensor) -> FloatFormat:
    return tensor.float_format or FloatFormat.BF16


def _read(file: GgufFile, tensor: GgufTensor, start: int, stop: int) -> Bits:
    """Elements start to stop as the patterns of `_format(tensor)`; blocks are rounded here."""
    if tensor.float_format is not None:
        return file.read_bits(tensor, start, stop)
    out = np.empty(stop - start, FloatFormat.BF16.bits_dtype)
    begin = start
    while begin < stop:
        end = min((begin // _CHUNK + 1) * _CHUNK, stop)
        values = file.read_values(tensor, begin, end)
        out[begin - start : end - start] = FloatFormat.BF16.narrow(values)
        begin = end
    return out


def _row_order(processor: Any, tensor: GgufTensor) -> NDArray[np.int64] | None:  # noqa: ANN401
    """Which row of the file each row is, learned by handing the row numbers to the processor."""
    rows = np.arange(tensor.shape[0]).reshape(-1, 1)
    order: NDArray[np.int64] = processor.process(weights=rows, name=tensor.name).weights.ravel()
    return None if np.array_equal(order, rows.ravel()) else order


@dataclass(frozen=True)
class _Rows:
    """A tensor as it lies in the file, or with its rows in another order."""

    tensor: GgufTensor
    order: NDArray[np.int64] | None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def format(self) -> FloatFormat:
        return _format(self.tensor)

    def read(self, file: GgufFile, start: int, stop: int) -> Bits:
        if self.order is None or start >= stop:
            return _read(file, self.tensor, start, stop)
        length = math.prod(self.shape[1:])
        first, last = start // length, -(-stop // length)
        wanted = self.order[first:last]
        lowest, highest = int(wanted.min()), int(wanted.max())
        # Rows move within their attention head only, so what is read is little more than wanted.
        rows = _read(file, self.tensor, lowest * length, (highest + 1) * length)
        picked = rows.reshape(-1, length)[wanted - lowest].ravel()
        return picked[start - first * length : stop - first * length]


@dataclass(frozen=True)
class _GateUp:
    """Two stacks `[experts, inner, hidden]` as one, `[experts, 2 * inner, hidden]`, gate first."""

    gate: GgufTensor
    up: GgufTensor

    @property
    def shape(self) -> tuple[int, ...]:
        experts, inner, hidden = self.gate.shape
        return experts, 2 * inner, hidden

    @property
    def format(self) -> FloatFormat:
        return _format(self.gate)

    def read(self, file: GgufFile, start: int, stop: int) -> Bits:
        half = math.prod(self.gate.shape[1:])
        out = np.empty(stop - start, self.format.bits_dtype)
        begin = start
        while begin < stop:
            n_halves = begin // half
            end = min((n_halves + 1) * half, stop)
            # The file has the halves of one expert in two places, each after those of the others.
            shift = (n_halves - n_halves // 2) * half
            part = _read(file, (self.gate, self.up)[n_halves % 2], begin - shift, end - shift)
            out[begin - start : end - start] = part
            begin = end
        return out


def _processed(processor: Any, tensor: GgufTensor) -> _Reader:  # noqa: ANN401
    """What the processor does to a tensor, learned from one that takes no memory."""
    probe = np.broadcast_to(_PROBE, tensor.shape)
    result = processor.process(weights=probe, name=tensor.name).weights
    if result is probe:
        return _Rows(tensor, None)
    moved = bool(np.all(result == _PROBE))
    return _Processed(processor, tensor, result.shape, _format(tensor) if moved else FloatFormat.F32)


@dataclass(frozen=True)
class _Processed:
    """A tensor that goes through transformers' processor as a whole.

    Patterns go through where values only move, so that they stay as they are; float32 values where
    the processor computes.
    """

    processor: Any
    tensor: GgufTensor
    shape: tuple[int, ...]
    format: FloatFormat

    def read(self, file: GgufFile, start: int, stop: int) -> Bits:
        n_weights = self.tensor.n_weights
        if self.format is FloatFormat.F32:
            weights: NDArray[Any] = file.read_values(self.tensor, 0, n_weights)
        else:
            weights = _read(file, self.tensor, 0, n_weights)
        name, shape = self.tensor.name, self.tensor.shape
        result = self.processor.process(weights=weights.reshape(shape), name=name).weights
        flat = np.ascontiguousarray(result).ravel()[start:stop]
        return flat.view(self.format.bits_dtype)
