"""What happens to each tensor of a model: it is clustered, kept, or tied to another one.

This is decided by names, dtypes and shapes alone, before any weight is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.source import Source
from isotone.checkpoint.source.vocabulary import has_row_per_token
from isotone.codec.arrays import SUFFIXES
from isotone.codec.packed import MAX_AXES, PackedLayout
from isotone.core.float_format import FloatFormat
from isotone.core.rate import uncoded_tensor_bytes
from isotone.core.scales.balancing import ScaleRule
from isotone.errors import InputError
from isotone.plan.settings import MatrixSettings, Selection, matches

_SMALLEST_STACKED_AXIS = 32
_USUAL_K = 16  # centroids that a search for a size often leads to, where up to 256 are allowed


@dataclass(frozen=True)
class Clustered:
    """A tensor to be clustered: one matrix, or a stack of matrices.

    Attributes
    ----------
    tensor : TensorInfo
        The tensor.
    settings : MatrixSettings
        How its matrices are clustered.
    n_matrices : int
        The number of matrices in the stack; 1 for a tensor that is not a stack.
    """

    tensor: TensorInfo
    settings: MatrixSettings
    n_matrices: int

    @property
    def layout(self) -> PackedLayout:
        """How its ranks are packed for codebooks of full length."""
        return self.layout_for(self.settings.k)

    def layout_for(self, k: int) -> PackedLayout:
        """Return how its ranks are packed.

        Parameters
        ----------
        k : int
            The length of the codebooks.

        Returns
        -------
        PackedLayout
            The layout of the packed array.
        """
        dtype = FloatFormat(self.tensor.dtype)
        return PackedLayout(self.tensor.shape, dtype, k, self.n_matrices)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Rows and columns of each matrix: its first axis, and all other axes flattened."""
        shape = self.tensor.shape[1:] if self.n_matrices > 1 else self.tensor.shape
        return shape[0], math.prod(shape[1:])


@dataclass(frozen=True)
class Kept:
    """A tensor that is stored bit for bit.

    Attributes
    ----------
    tensor : TensorInfo
        The tensor.
    reason : str
        Why it is not clustered.
    """

    tensor: TensorInfo
    reason: str


@dataclass(frozen=True)
class Tied:
    """A tensor that repeats another one byte for byte, and that the model's config ties to it.

    It is stored once, under the name of the other.

    Attributes
    ----------
    tensor : TensorInfo
        The tensor.
    to : str
        The name of the other.
    """

    tensor: TensorInfo
    to: str


TensorPlan = Clustered | Kept | Tied
"""The plan of one tensor."""


def plan_tensors(source: Source, selection: Selection, tied: Mapping[str, str]) -> list[TensorPlan]:
    """Decide what happens to each tensor of a model.

    Parameters
    ----------
    source : Source
        The model; no weights are read.
    selection : Selection
        Which tensors are clustered, and how.
    tied : mapping of str to str
        For each tensor that repeats another one, the name of the other.

    Returns
    -------
    list of Clustered, Kept or Tied
        One entry for each tensor, in the order of the source.

    Raises
    ------
    InputError
        If nothing would be clustered, if a glob of the selection matches no tensor that it could
        act on, or if a tensor has the name that a part of a clustered one would get.
    """
    names = [tensor.name for tensor in source.tensors]
    names_of = {name: [name] for name in names}
    for copy, original in tied.items():
        names_of[original].append(copy)
    plans: list[TensorPlan] = [
        Tied(tensor, tied[tensor.name])
        if tensor.name in tied
        else _plan_tensor(source, tensor, selection, names_of[tensor.name])
        for tensor in source.tensors
    ]
    chosen = [plan.tensor.name for plan in plans if isinstance(plan, Clustered)]
    settable = [name for one in chosen for name in names_of[one]]
    candidates = [t.name for t in source.tensors if reason_to_keep(t) is None]
    _refuse_idle_globs(selection, names, candidates, settable)
    _refuse_collisions(chosen, set(names))
    if not chosen:
        raise InputError(f"none of the {len(plans)} tensors would be clustered; nothing to do")
    return plans


def reason_to_keep(tensor: TensorInfo) -> str | None:
    """Return why a tensor is not a weight matrix to cluster.

    Names are considered for what shapes cannot tell: norms and biases that have two axes.

    Parameters
    ----------
    tensor : TensorInfo
        The tensor.

    Returns
    -------
    str or None
        The reason, or None for a weight matrix.
    """
    if tensor.dtype not in {float_format.value for float_format in FloatFormat}:
        return f"dtype {tensor.dtype}"
    if sum(axis > 1 for axis in tensor.shape) < 2 or tensor.n_weights == 0:
        return "not a matrix"
    if len(tensor.shape) > MAX_AXES:
        return f"more than {MAX_AXES} axes"
    *modules, parameter = tensor.name.split(".")
    if "bias" in parameter:
        return "bias"
    owner = (modules[-1] if modules and parameter == "weight" else parameter).lower()
    if "norm" in owner or owner.startswith("ln_"):
        return "norm"
    return None


def n_matrices(tensor: TensorInfo) -> int:
    """Return the number of matrices in a tensor.

    A stack of matrices (fused experts) has three axes. A convolution over one axis has three axes
    too, the last of them a few weights long.

    Parameters
    ----------
    tensor : TensorInfo
        The tensor.

    Returns
    -------
    int
        The number of matrices in the stack; 1 for a tensor that is not a stack.
    """
    if len(tensor.shape) != 3 or "conv" in tensor.name.lower():
        return 1
    is_stack = "expert" in tensor.name or min(tensor.shape[1:]) >= _SMALLEST_STACKED_AXIS
    return tensor.shape[0] if is_stack else 1


def _plan_tensor(
    source: Source, tensor: TensorInfo, selection: Selection, names: Sequence[str]
) -> Clustered | Kept:
    reason = reason_to_keep(tensor)
    if reason is not None:
        return Kept(tensor, reason)
    if not selection.chooses(names):
        return Kept(tensor, "excluded")
    settings = _without_columns(source, tensor, selection.settings_for(names))
    plan = Clustered(tensor, settings, n_matrices(tensor))
    k = min(settings.k, _USUAL_K)
    header_bytes = plan.layout_for(k).header_bytes
    if uncoded_tensor_bytes(header_bytes, tensor.n_weights, plan.n_matrices, k) >= tensor.n_bytes:
        return Kept(tensor, "too small to gain")
    return plan


def _without_columns(
    source: Source, tensor: TensorInfo, settings: MatrixSettings
) -> MatrixSettings:
    """Choose scales of rows alone for a matrix with a row for each token, if none were asked for.

    The columns of an embedding are the channels that all layers share, and errors in the large ones
    are not made up for by small errors elsewhere: on SmolLM2, scales of its columns take the KL
    divergence of the whole model from 0.15 to 0.22 at 4 bits, and from 0.56 to 0.82 at K = 16.
    """
    if settings.scale is ScaleRule.AUTO and has_row_per_token(source, tensor):
        return replace(settings, scale=ScaleRule.ROW)
    return settings


def _refuse_idle_globs(
    selection: Selection, names: Sequence[str], candidates: Sequence[str], chosen: Sequence[str]
) -> None:
    """Raise InputError for a glob that matches none of the tensors that it could act on."""
    for option, globs, within in (
        ("include", selection.include, candidates),
        ("exclude", selection.exclude, names),
        ("set", [rule.glob for rule in selection.rules], chosen),
    ):
        for glob in globs:
            if not any(matches(name, glob) for name in within):
                example = f", for example {candidates[0]}" if candidates else ""
                raise InputError(
                    f"{option} {glob!r} matches none of the {len(within)} tensors it could act "
                    f"on{example}"
                )


def _refuse_collisions(chosen: Sequence[str], names: set[str]) -> None:
    for name in chosen:
        for taken in names & {name + suffix for suffix in SUFFIXES}:
            raise InputError(
                f"{taken}: has the name that a part of the clustered {name} would get; exclude one "
                "of them"
            )
