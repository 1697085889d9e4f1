"""Reads and checks what a user asks of a compression, before any file is opened."""

from __future__ import annotations

from collections.abc import Sequence

from isotone.core.cluster import check_k
from isotone.core.clustering.method import method_named
from isotone.core.clustering.outliers import Protection
from isotone.core.clustering.solver import MAX_K
from isotone.core.scales.balancing import ScaleRule
from isotone.errors import InputError
from isotone.plan.settings import MatrixSettings, Rule, Selection

DEFAULT_BITS = 4.0
"""The bits per weight that the method `entropy` aims at if none are given."""

MIN_BITS, MAX_BITS = 1.0, 8.0
"""The bits per weight that can be asked for."""

_K = 16
_BUILT_IN = ("kmeans", "entropy")


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
    """Return which tensors are clustered, how, and the size that is asked for.

    Parameters
    ----------
    k, protect, scale, method, bits, include, exclude, settings : optional
        As `isotone.compress` takes them.

    Returns
    -------
    selection : Selection
        Which tensors are clustered, and how.
    target : float or None
        The bits per weight to aim at; None if the method does not aim at a size.

    Raises
    ------
    InputError
        If a value is not allowed, or if values contradict each other.
    """
    if method is not None:
        method_named(method)  # refuses a name that nobody registered
    target = _target(method, bits)
    if k is None:
        k = _K if target is None else MAX_K
    check_k(k)
    own = None if method in _BUILT_IN else method
    selection = Selection(
        MatrixSettings(k, Protection.parse(protect), ScaleRule.parse(scale), method_name=own),
        tuple(include),
        tuple(exclude),
        tuple(Rule.parse(text) for text in settings),
    )
    if target is not None:
        _refuse_fractions(selection)
    return selection, target


def check_bits(bits: float) -> None:
    """Check a size that is asked for.

    Parameters
    ----------
    bits : float
        Bits per weight.

    Raises
    ------
    InputError
        If they are not 1 to 8 bits per weight.
    """
    if not MIN_BITS <= bits <= MAX_BITS:
        raise InputError(f"bits is {bits}; expected {MIN_BITS:g} to {MAX_BITS:g} bits a weight")


def _target(method: str | None, bits: float | None) -> float | None:
    """Return the bits per weight that are asked for; None if the method does not aim at a size."""
    if method == "kmeans" and bits is not None:
        raise InputError(
            "bits were given, and method kmeans; k-means takes k, --bits goes with --method entropy"
        )
    if bits is not None:
        check_bits(bits)
    return DEFAULT_BITS if method == "entropy" and bits is None else bits


def _refuse_fractions(selection: Selection) -> None:
    """Refuse fractions of protected weights: with a Lagrange multiplier, the cost decides."""
    for settings in (selection.settings, *(r.apply(selection.settings) for r in selection.rules)):
        if settings.protect.fraction:
            raise InputError(
                f"protect is {settings.protect}; expected auto or off where bits are asked for"
            )
