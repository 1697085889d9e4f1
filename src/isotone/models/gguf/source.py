"""A GGUF file as a Source: the model that transformers would make of it, read in pieces.

What transformers knows is asked of transformers: the config, the tokenizer, the names, and the row
order (its `TENSOR_PROCESSORS` undo what the conversion to GGUF did to some tensors). isotone brings
the reading: transformers would hold the whole model in float32, and here a range of a tensor is
read at a time. The result has the names, shapes and row order of
`AutoModelForCausalLM.from_pretrained(DIR, gguf_file=NAME)`.

Dtypes. A tensor in quantised blocks comes out as BF16: dequantised in float32, then rounded once,
to nearest even; config.json then says `dtype: bfloat16`. A tensor of F32, F16 or BF16 keeps its
dtype and its bits, unless its processor computes with it (Gemma's `norm - 1`): then it is F32.

Memory. Most tensors, Llama's reordered queries and keys, and stacks of experts take memory in
proportion to the range that is read (and two attention heads at most). The rarer processors
(GPT-2's transposes, Bloom's fused attention, Mamba, the norms of Gemma) see the whole tensor, for
every range anew: nothing is kept.

What is refused, with one line: an architecture that transformers' loader of GGUF tensors does not
know, one whose tensors do not fill its model, and types that the gguf package cannot dequantise.
Tensors that have no name in transformers (`rope_freqs.weight`) are left out, as transformers leaves
them out, and are listed in `skipped`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.gguf.file import GgufFile, is_readable
from isotone.checkpoint.gguf.header import GgufTensor
from isotone.checkpoint.source.model_directory import files_identity
from isotone.checkpoint.source.source import CompanionFile
from isotone.errors import InputError
from isotone.models.gguf.model import GgufModel, read_model
from isotone.models.gguf.processed import processed_tensor, reordered_rows
from isotone.models.gguf.tensors import GateUp, StoredTensor, TensorReader, stored_format

_EXPERTS = re.compile(r"(blk\.\d+\.ffn_(gate|up|down)_exps)\.weight")


class GgufSource:
    """A GGUF file as a source, read only.

    Parameters
    ----------
    file : GgufFile
        The open file.
    readers : dict of str to TensorReader
        By the names of transformers, how each tensor is read.
    model : GgufModel
        What transformers makes of the file's header.
    skipped : sequence of str
        The tensors of the file that transformers has no place for.
    """

    def __init__(
        self,
        file: GgufFile,
        readers: Mapping[str, TensorReader],
        model: GgufModel,
        skipped: Sequence[str],
    ) -> None:
        self.file = file
        self.config = model.config_json
        self.companions: Sequence[CompanionFile] = model.companions
        self.skipped = skipped
        self.left_out: Mapping[str, str] = {}
        self.tensors: Sequence[TensorInfo] = [
            TensorInfo(name, reader.format.value, reader.shape) for name, reader in readers.items()
        ]
        self._readers = readers

    @property
    def n_bytes(self) -> int:
        """The bytes of the file."""
        return self.file.n_bytes

    def read(self, tensor: TensorInfo, start: int, stop: int) -> NDArray[np.uint8]:
        """Read the little-endian bytes of a range of a flattened tensor.

        Parameters
        ----------
        tensor : TensorInfo
            One of `tensors`.
        start, stop : int
            The range in elements; `stop` is not part of it.

        Returns
        -------
        uint8 array, `[(stop - start) * itemsize]`
            The bytes of the elements.

        Raises
        ------
        FormatError
            If the file cannot be read, or ends before.
        """
        bits = self._readers[tensor.name].read(self.file, start, stop)
        return np.ascontiguousarray(bits).view(np.uint8)

    def forget(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Do nothing: blocks are small, and their rows may be read in another order.

        Parameters
        ----------
        tensor : TensorInfo
            One of `tensors`.
        start, stop : int
            The range in elements.
        """

    def identity(self) -> dict[str, Any]:
        """Return the file's size and time, and a digest of its first bytes."""
        return files_identity([self.file.path])


def open_gguf(path: Path) -> GgufSource:
    """Open a GGUF file as a dense checkpoint, complete with config.json and tokenizer.

    Parameters
    ----------
    path : Path
        The file, on this machine.

    Returns
    -------
    GgufSource
        The open source.

    Raises
    ------
    FormatError
        If the file is damaged.
    InputError
        If transformers cannot make a model of it, or a type of tensor cannot be dequantised.
    MissingExtraError
        If transformers is not installed.

    Notes
    -----
    No weights are read. It takes seconds, as `read_model` does.
    """
    file = GgufFile.open(path)
    model = read_model(file)
    sources, skipped = _by_name(file, model)
    _check_scales(file, skipped)
    readers = {name: _reader(file, name, tensors, model) for name, tensors in sources.items()}
    _check_fit(file, model, readers)
    return GgufSource(file, readers, model, skipped)


def _by_name(file: GgufFile, model: GgufModel) -> tuple[dict[str, list[GgufTensor]], list[str]]:
    """Group the file's tensors by the name that transformers gives them; list those it has not."""
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


def _reader(file: GgufFile, name: str, tensors: list[GgufTensor], model: GgufModel) -> TensorReader:
    """Make the reader of one tensor of transformers from the tensors of the file for it."""
    for tensor in tensors:
        if not is_readable(tensor):
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
    make = reordered_rows if model.moves_rows_at_most else processed_tensor
    try:
        return make(tensor, model.processor)
    except (ArithmeticError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"{file.path}: {tensor.name} of shape {list(tensor.shape)} does not fit what the "
            f"metadata says of heads and widths: {error}"
        ) from error


def _merged(file: GgufFile, name: str, tensors: list[GgufTensor]) -> TensorReader:
    """Make the reader of a tensor that several tensors of the file are merged to."""
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
    """Refuse matrices with a separate scale tensor, because transformers would ignore the scale."""
    names = {tensor.name for tensor in file.tensors}
    for name in skipped:
        if name.endswith(".scale") and f"{name.removesuffix('.scale')}.weight" in names:
            raise InputError(
                f"{file.path}: scales a matrix by {name}, which isotone does not read; take "
                "another conversion of the model"
            )


def _check_fit(file: GgufFile, model: GgufModel, readers: Mapping[str, TensorReader]) -> None:
    """Raise InputError if a tensor of the model is missing from the file, or has another shape."""
    missing = sorted(model.parameters - set(readers))
    if missing:
        raise InputError(
            f"{file.path}: lacks {len(missing)} of the {len(model.parameters)} parameters of "
            f"{model.class_name}, {missing[0]} for one; the file is incomplete, or transformers "
            f"does not support architecture {file.architecture!r} in full"
        )
    for name, reader in readers.items():
        if reader.shape != model.shapes[name]:
            raise InputError(
                f"{file.path}: has {name} in shape {list(reader.shape)}; transformers expects "
                f"{list(model.shapes[name])} from the file's metadata"
            )
