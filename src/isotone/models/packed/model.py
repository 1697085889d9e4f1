"""A model with packed weights: what differs from an ordinary one is its dtype, and saving.

`save_pretrained` writes the compressed directory that the model came from, file by file; a
codebook-only one is written with what its base holds, because it would not find its base elsewhere.
That is what the model holds as long as nobody changed it, which is checked; a model that was
changed is refused, because its clustered form would have to be made and measured anew.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.opening import open_compressed
from isotone.checkpoint.overlay.write import write_complete
from isotone.checkpoint.source.companions import MANIFEST_FILE
from isotone.checkpoint.staging.open import open_staging
from isotone.errors import FormatError, InputError
from isotone.models.packed.hosting import CLUSTERED_CHILD, PackedParameter, host
from isotone.models.packed.modules import hosts
from isotone.models.packed.read_only import refuse_write
from isotone.models.packed.subclass import ORDINARY_CLASS, subclass
from isotone.models.packed.weight import ClusteredWeight
from isotone.models.plugin.config import IsotoneConfig
from isotone.models.plugin.origin import DIRECTORY_ATTRIBUTE

_CASTS = ("float", "double", "half", "bfloat16")
_MAKING = ".isotone-complete"


def become_packed(model: Any) -> None:
    """Give a model, and the models in it, a class that saves packed weights.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model; its class is replaced by a subclass of the same name.
    """
    from transformers.modeling_utils import PreTrainedModel

    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            present: Any = type(module)
            ordinary: Any = getattr(present, ORDINARY_CLASS, present)
            module.__class__ = packed_class(present, ordinary)


@cache
def packed_class(present: Any, ordinary: Any) -> type[Any]:
    """Make the class of a packed model.

    Parameters
    ----------
    present : type
        The class that the model has.
    ordinary : type
        The class that it had when it was loaded.

    Returns
    -------
    type
        A subclass of `present`.
    """
    additions = {
        ORDINARY_CLASS: ordinary,
        "dtype": property(_dtype),
        "num_parameters": _num_parameters,
        "resize_token_embeddings": _resize_token_embeddings,
        "save_pretrained": _save_pretrained,
        "tie_weights": _tie_weights,
        # Those of transformers refuse any quantized model; the weights of this one follow.
        **{name: getattr(torch.nn.Module, name) for name in _CASTS},
    }
    return subclass(packed_class, (present, ordinary), additions)


def _resize_token_embeddings(
    self: Any,
    new_num_tokens: int | None = None,
    pad_to_multiple_of: int | None = None,
    mean_resizing: bool = True,
) -> Any:
    """Return the embedding if it has that many rows; rows cannot be added to packed ranks."""
    embedding, head = self.get_input_embeddings(), self.get_output_embeddings()
    present = embedding.weight.shape[0]
    step = pad_to_multiple_of or 1
    wanted = -(-(new_num_tokens or present) // step) * step
    if wanted == present:
        return embedding
    if any(CLUSTERED_CHILD in getattr(each, "_modules", ()) for each in (embedding, head)):
        raise refuse_write("resize_token_embeddings", "would change the rows of")
    ordinary = getattr(type(self), ORDINARY_CLASS)
    return ordinary.resize_token_embeddings(self, new_num_tokens, pad_to_multiple_of, mean_resizing)


def _tie_weights(
    self: Any, missing_keys: set[str] | None = None, recompute_mapping: bool = True
) -> None:
    """Tie packed weights by sharing them, and all others as transformers does."""
    known = self.all_tied_weights_keys
    tied = self.get_expanded_tied_weights_keys(all_submodels=True) if recompute_mapping else known
    packed = dict(hosts(self))
    for target, source in tied.items():
        if source in packed and packed.get(target) is not packed[source]:
            module, _, name = target.rpartition(".")
            host(self.get_submodule(module), name, packed[source])
    self.all_tied_weights_keys = {t: s for t, s in tied.items() if s not in packed}
    try:
        ordinary = getattr(type(self), ORDINARY_CLASS)
        ordinary.tie_weights(self, missing_keys, recompute_mapping=False)
    finally:
        self.all_tied_weights_keys = known


def _num_parameters(
    self: Any, only_trainable: bool = False, exclude_embeddings: bool = False
) -> int:
    """Return the number of parameters as for the dense model; a packed weight is not trainable."""
    left_out = set()
    if exclude_embeddings:
        embeddings = [m for m in self.modules() if isinstance(m, torch.nn.Embedding)]
        left_out = {id(part) for each in embeddings for part in (each, *each.modules())}
    total = 0
    for module in self.modules():
        if id(module) in left_out:
            continue
        for parameter in module._parameters.values():
            codebook = isinstance(module, ClusteredWeight) and not only_trainable
            if parameter is not None and not codebook and _counts(parameter, only_trainable):
                total += parameter.numel()
        if isinstance(module, PackedParameter) and not only_trainable:
            total += module.source.shape.numel()
    return total


def _counts(parameter: torch.Tensor, only_trainable: bool) -> bool:
    return parameter.requires_grad or not only_trainable


def _dtype(model: Any) -> torch.dtype:
    """Return the dtype that a model computes in: codebooks are float32 in any model."""
    for module in model.modules():
        if isinstance(module, ClusteredWeight):
            return module.dtype
    return next(p.dtype for p in model.parameters() if p.is_floating_point())


def _save_pretrained(
    self: Any, save_directory: str | Path, is_main_process: bool = True, **options: Any
) -> None:
    """Write the compressed directory that this model came from, which holds just what it does.

    Raises InputError where the model has been changed since, FormatError where the directory has.
    Other options of `save_pretrained` concern dense weights and change nothing; `state_dict`,
    `variant` and `push_to_hub` are refused. Cost: loads the packed model once more to compare.
    """
    given = sorted(k for k in ("state_dict", "variant", "push_to_hub") if options.get(k))
    if given:
        raise InputError(f"save_pretrained of a packed model takes no {given[0]}; load it dense")
    source: Path = getattr(self, DIRECTORY_ATTRIBUTE)
    _refuse_changed(self, source)
    target = Path(save_directory)
    if not is_main_process or (target.exists() and target.samefile(source)):
        return
    directory = open_compressed(source)
    (target / MANIFEST_FILE).unlink(missing_ok=True)
    if directory.base is None:
        _place(directory, target, shutil.copyfile)
    else:
        _make_complete(directory, target)


def _place(
    directory: CompressedDirectory, target: Path, put: Callable[[Path, Path], object]
) -> None:
    """Put each file of a directory into another one, the manifest last."""
    for name in [*(record.name for record in directory.manifest.files), MANIFEST_FILE]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            put(directory.path / name, target / name)
        except FileNotFoundError as error:
            raise FormatError(f"{error.filename}: is gone, so the model cannot be saved") from error


def _make_complete(directory: CompressedDirectory, target: Path) -> None:
    """Write a codebook-only directory and its base as one; the target may hold other files too."""
    made = target / _MAKING
    with open_staging(made, {"save": directory.digest}, overwrite=True) as staging:
        write_complete(directory, (), staging, {})
        staging.publish()
    _place(open_compressed(made), target, os.replace)
    shutil.rmtree(made)


def _refuse_changed(model: Any, source: Path) -> None:
    """Load the directory once more, and raise InputError if the model differs from it."""
    ordinary = getattr(type(model), ORDINARY_CLASS)
    fresh = ordinary.from_pretrained(
        source, dtype=model.dtype, quantization_config=IsotoneConfig(residency="packed")
    ).state_dict()
    for name, tensor in model.state_dict().items():
        other = fresh.get(name)
        if other is None or not torch.equal(tensor.cpu(), other):
            raise InputError(
                f"{name}: was changed after the model was loaded from {source}, and a packed model "
                "is saved as it was; load it dense and change that one to save it"
            )
