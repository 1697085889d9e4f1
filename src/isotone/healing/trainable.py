"""Opens parts of a packed model for training, and takes their new values out again."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import parametrize

from isotone.checkpoint.compressed.manifest import Manifest
from isotone.checkpoint.overlay.tensor_overlay import TensorOverlay
from isotone.errors import InputError
from isotone.healing.coordinates import (
    AscendingCoordinates,
    FreeCoordinates,
    NormCoordinates,
    ScaleCoordinates,
)
from isotone.healing.order import nearest_ascending
from isotone.models.packed.modules import clustered_weights, share_stored
from isotone.models.packed.weight import ClusteredWeight
from isotone.models.plugin.checkpoint_tensors import TORCH_DTYPES

PARTS = ("codebook", "scale", "norm")
ORDERS = ("keep", "free")

_RATES = {"codebook": 1.0, "scale": 0.25, "norm": 0.25}
"""Learning rates of the parts, relative to that of codebooks: a scale moves all of its weights."""


@dataclass(frozen=True)
class Norm:
    """A norm's weight or bias: a parameter of a module.

    Attributes
    ----------
    module : Module
        The norm.
    parameter : str
        The name of the parameter in it.
    dtype : torch.dtype
        The dtype that the model has it in.
    stored : torch.dtype
        The dtype that its file has.
    """

    module: nn.Module
    parameter: str
    dtype: torch.dtype
    stored: torch.dtype

    @property
    def value(self) -> torch.Tensor:
        """The present value."""
        tensor: torch.Tensor = getattr(self.module, self.parameter)
        return tensor.detach()


@dataclass(frozen=True)
class Trainable:
    """The parts of a model that are trained.

    Attributes
    ----------
    weights : tuple of ClusteredWeight
        The clustered tensors, whose codebooks and scales may be open for training.
    norms : dict of str to Norm
        The norms that are open, by the names of their tensors in the checkpoint.
    groups : tuple of (list of Parameter, float)
        The coordinates (see `isotone.healing.coordinates`) in groups for an optimizer, each with
        its learning rate relative to that of codebooks.
    """

    weights: tuple[ClusteredWeight, ...]
    norms: dict[str, Norm]
    groups: tuple[tuple[list[nn.Parameter], float], ...]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All coordinates, in a fixed order."""
        return [parameter for group, _ in self.groups for parameter in group]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def restore_order(self) -> None:
        """Replace free codebooks by the nearest ascending ones, as they are going to be written."""
        for weight in self.weights:
            if parametrize.is_parametrized(weight, "codebook"):
                ascending = torch.from_numpy(nearest_ascending(_numpy(weight.codebook)))
                weight.codebook = ascending.to(weight.device)

    def overlays(self) -> list[TensorOverlay]:
        """Return the present values of everything that was opened."""
        opened = [w for w in self.weights if parametrize.is_parametrized(w)]
        norms = self.norms.items()
        return [_overlay(weight) for weight in opened] + [
            TensorOverlay(name, kept=_bytes(norm.value.to(norm.stored))) for name, norm in norms
        ]


def check_parts(manifest: Manifest, parts: Collection[str], order: str) -> None:
    """Raise InputError for an unknown part or order, or a part that a directory lacks.

    Parameters
    ----------
    manifest : Manifest
        The manifest of the directory.
    parts : collection of str
        The parts to train, some of `PARTS`.
    order : str
        `keep` or `free`.

    Raises
    ------
    InputError
        If a part or the order is unknown, or if the directory has no scales and they are to be
        trained.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown or not parts:
        raise InputError(f"train is {','.join(parts)!r}; expected some of {','.join(PARTS)}")
    if order not in ORDERS:
        raise InputError(f"order is {order!r}; expected {' or '.join(ORDERS)}")
    if "scale" in parts and all(record.scale == "none" for record in manifest.clustered):
        raise InputError("train names 'scale', and this model has no scales; leave it out")


def open_for_training(
    model: nn.Module, manifest: Manifest, parts: Collection[str], order: str
) -> Trainable:
    """Freeze a packed model except for some parts of it.

    Parameters
    ----------
    model : Module
        The model, loaded with packed weights.
    manifest : Manifest
        The manifest of its directory.
    parts : collection of str
        The parts to train, some of `PARTS`.
    order : str
        `keep` to keep centroids in order, `free` to let them cross.

    Returns
    -------
    Trainable
        The opened parts. A codebook whose weights all have one rank is not trained.

    Raises
    ------
    InputError
        If `check_parts` raises it, if a part has nothing to train, or if a norm is none of the
        checkpoint's tensors.
    """
    check_parts(manifest, parts, order)
    share_stored(model)  # what is stored once is trained as one
    model.requires_grad_(False)
    weights = tuple(clustered_weights(model))
    opened: dict[str, list[nn.Parameter]] = {part: [] for part in PARTS}
    norms = dict(_norms(model, manifest)) if "norm" in parts else {}
    for weight in weights:
        if "codebook" in parts:
            opened["codebook"] += _open_codebook(weight, order)
        if "scale" in parts:
            opened["scale"] += _open_scales(weight)
    for norm in norms.values():
        setattr(norm.module, norm.parameter, nn.Parameter(norm.value.float()))
        coordinates = NormCoordinates(norm.value, norm.stored, norm.dtype)
        opened["norm"].append(_open(norm.module, norm.parameter, coordinates))
    for part in PARTS:
        if part in parts and not opened[part]:
            raise InputError(f"train names {part!r}, and this model has none; leave it out")
    groups = tuple((opened[part], _RATES[part]) for part in PARTS if opened[part])
    return Trainable(weights, norms, groups)


def _open_codebook(weight: ClusteredWeight, order: str) -> list[nn.Parameter]:
    codebook, counts = weight.codebook.detach(), _counts(weight)
    if bool(((counts > 0).sum(-1) < 2).all()):
        return []
    kind = AscendingCoordinates if order == "keep" else FreeCoordinates
    return [_open(weight, "codebook", kind(codebook, counts.view(codebook.shape)))]


def _open_scales(weight: ClusteredWeight) -> list[nn.Parameter]:
    opened = []
    for name in ("row_scale", "column_scale"):
        stored = getattr(weight, name)
        if stored is None:
            continue
        scales = weight.all_scales(name)
        delattr(weight, name)
        weight.register_parameter(name, nn.Parameter(scales))
        opened.append(_open(weight, name, ScaleCoordinates(scales)))
    return opened


def _open(module: nn.Module, name: str, coordinates: nn.Module) -> nn.Parameter:
    """Put coordinates in the place of a parameter, and return them: only they are trained."""
    parametrize.register_parametrization(module, name, coordinates, unsafe=True)
    parameter: nn.Parameter = module.parametrizations[name].original
    return parameter.requires_grad_(True)


def _counts(weight: ClusteredWeight) -> torch.Tensor:
    """Return the number of weights of each rank, [matrices, k] int64.

    The ranks are unpacked for it, which takes a byte for each weight.
    """
    ranks = weight.ranks().reshape(weight.n_matrices, -1)
    k = weight.codebook.shape[-1]
    return torch.stack([torch.bincount(row, minlength=k) for row in ranks])


def _norms(model: nn.Module, manifest: Manifest) -> Iterator[tuple[str, Norm]]:
    kept = {record.name: record for record in manifest.kept}
    for path, module in model.named_modules():
        if "norm" not in type(module).__name__.lower():
            continue
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{path}.{name}" if path else name
            record = kept.get(full)
            if record is None or record.shape != tuple(parameter.shape):
                raise InputError(
                    f"train names 'norm', and {full} of the model is none of the tensors that its "
                    "directory keeps under this name; leave 'norm' out"
                )
            yield full, Norm(module, name, parameter.dtype, TORCH_DTYPES[record.dtype])


def _overlay(weight: ClusteredWeight) -> TensorOverlay:
    opened = weight.parametrizations
    return TensorOverlay(
        weight.name,
        codebook=nearest_ascending(_numpy(weight.codebook)) if "codebook" in opened else None,
        row_scale=_half(weight, "row_scale") if "row_scale" in opened else None,
        column_scale=_half(weight, "column_scale") if "column_scale" in opened else None,
    )


def _half(weight: ClusteredWeight, name: str) -> NDArray[np.float16]:
    """Return scales as float16, which holds what ScaleCoordinates gives."""
    return _numpy(getattr(weight, name)).astype(np.float16)


def _numpy(tensor: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return array


def _bytes(tensor: torch.Tensor) -> bytes:
    data: bytes = tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return data
