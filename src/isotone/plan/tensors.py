"""What happens to each tensor of a checkpoint, decided before any weight is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from isotone.checkpoint.files.tensor_info import TensorInfo
from isotone.checkpoint.source.source import Source
from isotone.codec.arrays import SUFFIXES
from isotone.codec.packed import MAX_AXES, PackedLayout
from isotone.core.cluster import check_k
from isotone.core.clustering.entropy import EntropyMethod
from isotone.core.clustering.method import Method
from isotone.core.clustering.outliers import KMeansMethod, Protection
from isotone.core.float_format import FloatFormat
from isotone.core.scales.balancing import ScaleRule
from isotone.errors import InputError

SHARD_BYTES = 1 << 30
"""Dense bytes that one shard of the output stands for: what one worker takes as one task, and the
work that is lost when killed. Small enough to share a large model out evenly."""

_SMALLEST_STACKED_AXIS = 32
_USUAL_K = 16  # what a price may well lead to, where up to 256 centroids are allowed


@dataclass(frozen=True)
class Settings:
    """How a matrix is clustered.

    k: how many centroids; with a price, at most. protect, scale: rules for protected weights and
    for factors. price: of a bit (see EntropyMethod), None for plain k-means.
    """

    k: int = 16
    protect: Protection = field(default_factory=Protection)
    scale: ScaleRule = ScaleRule.AUTO
    lambda_: float | None = None

    @property
    def method(self) -> Method:
        """What clusters the points of a matrix."""
        if self.lambda_ is None:
            return KMeansMethod(self.k, self.protect)
        return EntropyMethod(self.lambda_, self.k, protect=self.protect.fraction is None)


@dataclass(frozen=True)
class Rule:
    """Settings for the tensors that a glob matches: `GLOB:k=64,protect=off`."""

    glob: str
    changes: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read a rule; raises InputError where it is not one."""
        glob, colon, pairs = text.rpartition(":")
        changes = tuple(tuple(pair.strip().split("=", 1)) for pair in pairs.split(","))
        if not colon or not glob or any(len(change) != 2 for change in changes):
            raise InputError(f"set is {text!r}; expected GLOB:k=64 or GLOB:k=64,protect=off")
        rule = cls(glob, changes)  # type: ignore[arg-type]
        rule.apply(Settings())
        return rule

    def apply(self, settings: Settings) -> Settings:
        """The settings with this rule's changes; raises InputError for values out of range."""
        for key, value in self.changes:
            if key == "k":
                settings = replace(settings, k=parse_k(value))
            elif key == "protect":
                settings = replace(settings, protect=Protection.parse(value))
            elif key == "scale":
                settings = replace(settings, scale=ScaleRule.parse(value))
            else:
                raise InputError(
                    f"set {self.glob!r}: {key!r} is not a setting; expected k, protect, scale"
                )
        return settings


@dataclass(frozen=True)
class Clustered:
    """A tensor to be clustered: a matrix, or a stack of n_matrices."""

    tensor: TensorInfo
    settings: Settings
    n_matrices: int

    @property
    def layout(self) -> PackedLayout:
        """How its ranks will be packed, for codebooks of full length."""
        return self.layout_for(self.settings.k)

    def layout_for(self, k: int) -> PackedLayout:
        """How its ranks will be packed, for codebooks of length k."""
        dtype = FloatFormat(self.tensor.dtype)
        return PackedLayout(self.tensor.shape, dtype, k, self.n_matrices)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Rows and columns of each matrix: its first axis, and all others flattened."""
        shape = self.tensor.shape[1:] if self.n_matrices > 1 else self.tensor.shape
        return shape[0], math.prod(shape[1:])


@dataclass(frozen=True)
class Kept:
    """A tensor to be stored bit for bit, and why."""

    tensor: TensorInfo
    reason: str


@dataclass(frozen=True)
class Tied:
    """A tensor that repeats another one, byte for byte, and is tied to it by the model's config.

    Stored once, under the name of the other.
    """

    tensor: TensorInfo
    to: str


TensorPlan = Clustered | Kept | Tied


@dataclass(frozen=True)
class Shard:
    """One file of the output."""

    name: str
    clustered: tuple[Clustered, ...]
    kept: tuple[Kept, ...]

    @property
    def n_bytes(self) -> int:
        """Dense bytes."""
        return sum(tensor.n_bytes for tensor in self.tensors)

    @property
    def tensors(self) -> list[TensorInfo]:
        """Its tensors."""
        return [*(item.tensor for item in self.clustered), *(item.tensor for item in self.kept)]


@dataclass(frozen=True)
class Selection:
    """Which tensors are clustered, and how: globs on names, with or without `.weight`."""

    settings: Settings = field(default_factory=Settings)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()


def plan_tensors(source: Source, selection: Selection, tied: Mapping[str, str]) -> list[TensorPlan]:
    """Decide for each tensor, in the order of the source.

    tied: for each tensor that repeats another one, the name of the other.

    Raises InputError where nothing would be clustered, and for an include, exclude or set that
    matches no tensor it could act on.
    """
    plans: list[TensorPlan] = [
        Tied(tensor, tied[tensor.name]) if tensor.name in tied else _plan_tensor(tensor, selection)
        for tensor in source.tensors
    ]
    candidates = [t.name for t in source.tensors if reason_to_keep(t) is None]
    chosen = [plan.tensor.name for plan in plans if isinstance(plan, Clustered)]
    for option, globs, names in (
        ("include", selection.include, candidates),
        ("exclude", selection.exclude, [t.name for t in source.tensors]),
        ("set", [rule.glob for rule in selection.rules], chosen),
    ):
        for glob in globs:
            if not any(_matches(name, glob) for name in names):
                example = f", for example {candidates[0]}" if candidates else ""
                raise InputError(
                    f"{option} {glob!r} matches none of the {len(names)} tensors it could act "
                    f"on{example}"
                )
    _refuse_collisions(chosen, {tensor.name for tensor in source.tensors})
    if not chosen:
        raise InputError(f"none of the {len(plans)} tensors would be clustered; nothing to do")
    return plans


def plan_shards(plans: Sequence[TensorPlan], shard_bytes: int = SHARD_BYTES) -> list[Shard]:
    """Group tensors, in order, into files."""
    groups: list[list[Clustered | Kept]] = [[]]
    size = 0
    for plan in plans:
        if isinstance(plan, Tied):
            continue
        if groups[-1] and size + plan.tensor.n_bytes > shard_bytes:
            groups.append([])
            size = 0
        groups[-1].append(plan)
        size += plan.tensor.n_bytes
    return [
        Shard(
            shard_name(i, len(groups)),
            tuple(plan for plan in group if isinstance(plan, Clustered)),
            tuple(plan for plan in group if isinstance(plan, Kept)),
        )
        for i, group in enumerate(groups)
    ]


def shard_name(i: int, n: int) -> str:
    """The file name of shard i of n, as transformers names them."""
    return "model.safetensors" if n == 1 else f"model-{i + 1:05}-of-{n:05}.safetensors"


def parse_k(text: str) -> int:
    """Read a number of centroids; raises InputError."""
    try:
        k = int(text)
    except ValueError:
        raise InputError(f"k is {text!r}; expected a number from 2 to 256") from None
    check_k(k)
    return k


def reason_to_keep(tensor: TensorInfo) -> str | None:
    """Why a tensor is no weight matrix to cluster, or None where it is one.

    Names are looked at for what shapes cannot tell: norms and biases with two axes.
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
    """The height of a stack of matrices (fused experts), or 1.

    A convolution over one axis has three axes too, the last of them a few weights long.
    """
    if len(tensor.shape) != 3 or "conv" in tensor.name.lower():
        return 1
    is_stack = "expert" in tensor.name or min(tensor.shape[1:]) >= _SMALLEST_STACKED_AXIS
    return tensor.shape[0] if is_stack else 1


def _plan_tensor(tensor: TensorInfo, selection: Selection) -> Clustered | Kept:
    reason = reason_to_keep(tensor)
    if reason is not None:
        return Kept(tensor, reason)
    included = not selection.include or any(_matches(tensor.name, g) for g in selection.include)
    if not included or any(_matches(tensor.name, glob) for glob in selection.exclude):
        return Kept(tensor, "excluded")
    settings = selection.settings
    for rule in selection.rules:
        if _matches(tensor.name, rule.glob):
            settings = rule.apply(settings)
    plan = Clustered(tensor, settings, n_matrices(tensor))
    if _fixed_width_bytes(plan.layout_for(min(settings.k, _USUAL_K))) >= tensor.n_bytes:
        return Kept(tensor, "too small to gain")
    return plan


def _refuse_collisions(chosen: Sequence[str], names: set[str]) -> None:
    for name in chosen:
        for taken in names & {name + suffix for suffix in SUFFIXES}:
            raise InputError(
                f"{taken}: has the name that a part of the clustered {name} would get; exclude one "
                "of them"
            )


def _fixed_width_bytes(layout: PackedLayout) -> int:
    ranks = layout.n_matrices * layout.matrix_weights * max(1, (layout.k - 1).bit_length()) // 8
    return layout.header_bytes + ranks + 4 * layout.n_matrices * layout.k


def _matches(name: str, glob: str) -> bool:
    return fnmatchcase(name, glob) or fnmatchcase(name.removesuffix(".weight"), glob)
