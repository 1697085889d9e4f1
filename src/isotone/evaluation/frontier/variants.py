"""The ways to compress a model that a sweep goes through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from isotone.core.cluster import check_k
from isotone.plan.options import check_bits

BITS = (2.6, 3.1, 3.6, 4.1, 5.0)
K = (16, 32, 64)

CALIBRATED, ENTROPY = "isotone, calibrated", "isotone, entropy"
KMEANS, PLAIN = "isotone, k-means", "k-means, plain"


@dataclass(frozen=True)
class FrontierVariant:
    """One way to compress a model.

    Attributes
    ----------
    family : str
        The line of the chart that it belongs to.
    label : str
        Its name on that line.
    arguments : dict
        The keyword arguments of `isotone.compress`.
    """

    family: str
    label: str
    arguments: dict[str, Any] = field(hash=False)


DENSE = FrontierVariant("dense", "dense", {})
"""The model as it is, not compressed."""


def frontier_variants(
    bits: Sequence[float] = BITS, k: Sequence[int] = K, calibrate: str | None = None
) -> list[FrontierVariant]:
    """Return the variants of a sweep: sizes in bits, and numbers of centroids in two ways.

    Parameters
    ----------
    bits : sequence of float
        Sizes for the method `entropy`, in bits per weight.
    k : sequence of int
        Numbers of centroids for k-means, each once as isotone does it and once plainly: without
        protected weights and scales, as in arXiv 2603.17917.
    calibrate : str, optional
        `self` or a text file, to go through the sizes once more with errors weighted by
        calibration statistics; see `isotone.compress`.

    Returns
    -------
    list of FrontierVariant
        The variants in the order in which they are measured; a value given twice counts once.

    Raises
    ------
    InputError
        If `isotone.compress` would not take a value.

    Examples
    --------
    >>> [(variant.family, variant.label) for variant in frontier_variants([3.1], [16])]
    [('isotone, entropy', '3.1 bits'), ('isotone, k-means', 'K = 16'), ('k-means, plain', 'K = 16')]
    """
    for size in bits:
        check_bits(size)
    for number in k:
        check_k(number)
    sizes, numbers = dict.fromkeys(bits), dict.fromkeys(k)
    plain = {"protect": "off", "scale": "none"}
    calibrated = [] if calibrate is None else sizes
    return [
        *(
            FrontierVariant(
                CALIBRATED, f"{size:g} bits", {"bits": size, "calibrate": str(calibrate)}
            )
            for size in calibrated
        ),
        *(FrontierVariant(ENTROPY, f"{size:g} bits", {"bits": size}) for size in sizes),
        *(FrontierVariant(KMEANS, f"K = {number}", {"k": number}) for number in numbers),
        *(FrontierVariant(PLAIN, f"K = {number}", {"k": number, **plain}) for number in numbers),
    ]
