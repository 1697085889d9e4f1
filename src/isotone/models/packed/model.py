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

from isotone.checkpoint.compressed.manifest import MANIFEST_FILE
from isotone.checkpoint.compressed.reader import CompressedDirectory
from isotone.checkpoint.opening import open_compressed
from isotone.checkpoint.overlay.write import write_complete
from isotone.checkpoint.staging.open import open_staging
from isotone.errors import FormatError, InputError
from isotone.models.packed.modules import ORDINARY_CLASS, subclass
from isotone.models.packed.weight import ClusteredWeight
from isotone.models.plugin.config import IsotoneConfig
from isotone.models.plugin.origin import DIRECTORY_ATTRIBUTE

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
            module.__class__ = _packed_class(present, ordinary)


@cache
def _packed_class(present: Any, ordinary: Any) -> type[Any]:
    additions = {"dtype": property(_dtype), "save_pretrained": _save_pretrained}
    return subclass(present, {ORDINARY_CLASS: ordinary, **additions})


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
