"""The nearest codebook in ascending order."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from isotone.core.values import is_ascending
from isotone.healing.order import nearest_ascending


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9))
def test_the_nearest_ascending_codebook(values):
    """Anormst the definition: the mean of a run, smallest over ends after, largest over starts."""
    codebook = np.array(values, np.float32)
    ascending = nearest_ascending(codebook)
    assert is_ascending(ascending)
    n = len(values)
    means = [
        max(min(np.mean(values[i : j + 1]) for j in range(k, n)) for i in range(k + 1))
        for k in range(n)
    ]
    np.testing.assert_allclose(ascending, means, atol=1e-5)
    if is_ascending(codebook):
        assert np.array_equal(ascending, codebook)
