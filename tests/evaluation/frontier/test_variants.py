"""The variants of a sweep: each once, and only what compress takes."""

from __future__ import annotations

import pytest

from isotone.errors import InputError
from isotone.evaluation.frontier.variants import ENTROPY, KMEANS, PLAIN, frontier_variants


def test_variants_are_named_once_and_checked():
    named = [(v.family, v.label, v.arguments) for v in frontier_variants([3.1, 3.1], [16])]
    assert named == [
        (ENTROPY, "3.1 bits", {"bits": 3.1}),
        (KMEANS, "K = 16", {"k": 16}),
        (PLAIN, "K = 16", {"k": 16, "protect": "off", "scale": "none"}),
    ]
    with pytest.raises(InputError, match="k is 257"):
        frontier_variants([], [257])
    with pytest.raises(InputError, match=r"bits is 0\.5"):
        frontier_variants([0.5], [])
