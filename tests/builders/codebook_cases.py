"""Codebooks of any size with their counts, and edits of them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from isotone.study.edits import EDITS

OTHER = {"other": np.array([-3.0, 0.5, 9.0]), "other_counts": np.array([5, 90, 5])}
PARAMETERS = {"quantile_match": OTHER}


@st.composite
def codebooks(draw, smallest=1):
    """An ascending codebook of any size and its counts; centroids no nearer than a millionth."""
    k = draw(st.integers(smallest, 24))
    places = draw(st.lists(st.integers(-(10**6), 10**6), min_size=k, max_size=k, unique=True))
    counts = draw(st.lists(st.integers(1, 10**6), min_size=k, max_size=k))
    return np.sort(np.array(places, np.float64)) * 1e-6, np.array(counts)


def edited(name, codebook, counts, seed=0, **parameters):
    """Apply an edit by its name, with a fresh generator."""
    edit = EDITS[name].with_parameters(**PARAMETERS.get(name, {}) | parameters)
    return edit(codebook, counts, np.random.default_rng(seed))
