"""What a user asks of a compression, read and checked before any file is opened."""

from __future__ import annotations

from collections.abc import Sequence

from isotone.core.cluster import check_k
from isotone.core.clustering.kmeans import MAX_K
from isotone.core.clustering.outliers import Protection
from isotone.core.scales.balancing import ScaleRule
from isotone.errors import InputError
from isotone.plan.tensors import Rule, Selection, Settings

DEFAULT_BITS = 4.0
"""What --method entropy aims at when no bits are given."""

MIN_BITS, MAX_BITS = 1.0, 8.0

_K = 16


def selection_of(
    *,
    k: int | None = None,
    protect: str = "auto",
    scale: str = "auto",
    method: str | None = None,
    bits: float | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    settings: Sequence[str] = (),
) -> tuple[Selection, float | None]:
    """Which tensors are clustered, and how; the bits a weight to aim at, None for k-means.

    All as compress takes them. Raises InputError for what cannot be or does not go together.
    """
    target = _target(method, bits)
    if k is None:
        k = _K if target is None else MAX_K
    check_k(k)
    selection = Selection(
        Settings(k, Protection.parse(protect), ScaleRule.parse(scale)),
        tuple(include),
        tuple(exclude),
        tuple(Rule.parse(text) for text in settings),
    )
    if target is not None:
        _refuse_fractions(selection)
    return selection, target


def check_bits(bits: float) -> None:
    """Raise InputError for a size that no price leads to."""
    if not MIN_BITS <= bits <= MAX_BITS:
        raise InputError(f"bits is {bits}; expected {MIN_BITS:g} to {MAX_BITS:g} bits a weight")


def _target(method: str | None, bits: float | None) -> float | None:
    """The bits that are asked for, or None for k-means."""
    if method not in (None, "kmeans", "entropy"):
        raise InputError(f"method is {method!r}; expected kmeans or entropy")
    if method == "kmeans" and bits is not None:
        raise InputError(
            "bits were given, and method kmeans; k-means takes k, --bits goes with --method entropy"
        )
    if bits is not None:
        check_bits(bits)
    return DEFAULT_BITS if method == "entropy" and bits is None else bits


def _refuse_fractions(selection: Selection) -> None:
    """With a price, a weight is protected where that is cheaper, or not at all."""
    for settings in (selection.settings, *(r.apply(selection.settings) for r in selection.rules)):
        if settings.protect.fraction:
            raise InputError(
                f"protect is {settings.protect}; expected auto or off where bits are asked for"
            )
