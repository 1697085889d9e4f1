"""Positions of protected weights as 16-bit deltas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotone.codec.outlier_index import decode_positions, encode_positions
from isotone.errors import FormatError


@given(st.lists(st.integers(0, 400_000), unique=True, max_size=40).map(sorted))
def test_protected_positions_come_back(positions):
    entries = encode_positions(np.array(positions, np.int64))
    assert entries.dtype == np.uint16
    assert decode_positions(entries, 400_001, "x").tolist() == positions


@pytest.mark.parametrize(
    ("positions", "entries"),
    [
        ([], []),
        ([0], [0]),
        ([0, 1, 2], [0, 0, 0]),
        ([65534], [65534]),
        ([65535], [65535, 0]),
        ([3, 65538, 65539], [3, 65534, 0]),
        ([3, 65539], [3, 65535, 0]),
        ([200_000], [65535, 65535, 65535, 3395]),
    ],
)
def test_protected_positions_by_hand(positions, entries):
    assert encode_positions(np.array(positions, np.int64)).tolist() == entries
    found = decode_positions(np.array(entries, np.uint16), 200_001, "x")
    assert found.tolist() == positions


@given(st.lists(st.integers(0, 300_000), unique=True, min_size=2, max_size=20).map(sorted))
def test_positions_may_be_coded_in_parts(positions):
    whole = encode_positions(np.array(positions))
    parts = [
        encode_positions(np.array(positions[:3])),
        encode_positions(np.array(positions[3:], np.int64), positions[min(2, len(positions) - 1)]),
    ]
    assert np.array_equal(np.concatenate(parts), whole)


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=20), st.integers(1, 100_000))
def test_positions_beyond_the_tensor_are_refused(entries, n_weights):
    entries = np.array(entries, np.uint16)
    last = sum(65535 if entry == 65535 else int(entry) + 1 for entry in entries) - 1
    if entries[-1] == 65535 or last >= n_weights:
        with pytest.raises(FormatError, match=r"h\.weight: protected positions reach beyond"):
            decode_positions(entries, n_weights, "h.weight")
    else:
        assert decode_positions(entries, n_weights, "h.weight")[-1] == last
