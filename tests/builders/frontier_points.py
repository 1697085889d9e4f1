"""Made-up points of a frontier, as its charts take them."""

from __future__ import annotations

DENSE = 29.19


def point(bits, perplexity, kl=0.1, *, family="isotone", label="a", kind="swept"):
    return {
        "kind": kind,
        "family": family,
        "label": label,
        "bits_per_weight": bits,
        "perplexity": perplexity,
        "kl": kl,
    }


POINTS = [
    point(16.0, DENSE, 0.0, kind="dense", family="dense"),
    point(3.1, 46.0, 0.5, label="3.1 bits"),
    point(4.1, 32.0, 0.09, label="4.1 bits"),
    point(3.6, 126657.0, 9.2, family="plain", label="K = 16"),
    point(4.25, 37.1, 0.28, family="NF4", label="block 64", kind="peer"),
    point(3.0, None, None, family="NF4", label="3-bit", kind="peer"),
]
