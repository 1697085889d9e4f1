"""Clustering an array in memory: matrices of every degenerate kind, stacks, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from isotone.core import counting
from isotone.core.cluster import cluster
from isotone.errors import InputError

DEGENERATE = {
    "constant": np.full((7, 9), 0.3),
    "zeros": np.zeros((5, 5)),
    "one weight": np.ones((1, 1)),
    "one row": np.arange(1000.0)[None, :] ** 2,
    "one column": np.arange(1000.0)[:, None] ** 2,
    "denormals": np.arange(300)[:, None] * 1e-45,
    "huge": np.linspace(-6e4, 6e4, 500)[None, :],
    "largest": np.array([[3.4028234e38, -3.4028234e38, 3.4028232e38] * 40]),
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("protect", ["off", "auto", "0.01"])
@pytest.mark.parametrize("many", [False, True])
def test_degenerate_matrices(name, protect, many, monkeypatch):
    monkeypatch.setattr(counting, "MAX_DISTINCT", 1 if many else 1 << 20)
    array = DEGENERATE[name].astype(np.float32)
    found = cluster(array, 4, protect=protect)
    assert found.dense().shape == array.shape
    assert np.isfinite(found.dense()).all()
    distinct = np.unique(array)
    if len(distinct) <= 4 and not many:
        assert np.array_equal(found.dense(), array)
    # Any clustering in which all clusters are runs stays within the values themselves.
    assert distinct[0] <= found.dense().min()
    assert found.dense().max() <= distinct[-1]


def test_arrays_of_other_kinds_are_refused_rather_than_cast():
    for dtype in ("float64", "int32", "complex64", "bool", ">f4"):
        with pytest.raises(InputError, match="expected float32, float16 or bfloat16"):
            cluster(np.ones((3, 3), dtype), 2)
    with pytest.raises(InputError, match="expected a NumPy array"):
        cluster([[1.0]], 2)
    for shape in ((3,), (0, 3)):
        with pytest.raises(InputError, match="a stack of shape"):
            cluster(np.ones(shape, np.float32), 2, stack=True)


def test_a_stack_is_each_matrix_by_itself():
    array = np.random.default_rng(0).standard_t(3, (3, 40, 50)).astype(np.float32)
    array[1] = np.sign(array[1])  # fewer values than k
    stack = cluster(array, 6, stack=True)
    assert (np.diff(stack.codebook, axis=1) > 0).all()
    for i, matrix in enumerate(array):
        single = cluster(matrix, 6)
        assert np.array_equal(stack.ranks[i], single.ranks)
        assert np.array_equal(stack.codebook[i, : single.k], single.codebook)
        assert np.array_equal(stack.dense()[i], single.dense())
        assert np.array_equal(stack.counts[i, : single.k], single.counts)
