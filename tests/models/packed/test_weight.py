"""A packed weight decodes to what the core object does, from a fraction of the memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from isotone.core.cluster import cluster
from isotone.core.float_format import FloatFormat
from isotone.core.rate import rank_bits
from tests.builders.packed_weights import packed_weight, random_tensor

SHAPES = [
    ((40, 24), False),
    ((7, 5), False),
    ((3, 16, 8), True),
    ((2, 5, 3, 2), True),
    ((9, 4, 3), 0),
]


@pytest.mark.parametrize(("shape", "stack"), SHAPES)
@pytest.mark.parametrize("scales", [False, True, "codes"])
@pytest.mark.parametrize("k", [2, 5, 16, 100, 256])
@pytest.mark.parametrize("float_format", FloatFormat)
def test_decodes_what_the_core_object_does(shape, stack, scales, k, float_format):
    tensor = random_tensor(shape, k, stack=bool(stack), scales=scales, float_format=float_format)
    weight = packed_weight(tensor)
    expected = torch.from_numpy(tensor.dense())
    assert torch.equal(weight().float(), expected)
    assert torch.equal(weight.ranks(), torch.from_numpy(tensor.ranks))
    back = weight.clustered_tensor()
    assert np.array_equal(back.dense_bits(), tensor.dense_bits())
    if stack:
        for number in range(shape[0]):
            assert torch.equal(weight.matrix(number).float(), expected[number])
    else:
        rows = torch.tensor([[3, 0, 3], [shape[0] - 1, 1, 2]])
        assert torch.equal(weight.rows(rows).float(), expected[rows])


@pytest.mark.parametrize("k", [16, 32])
def test_resident_bytes_are_those_of_the_ranks_and_five_percent(k):
    rng = np.random.default_rng(0)
    array = rng.standard_t(6, (1024, 768)).astype(np.float16)
    weight = packed_weight(cluster(array, k))
    n_bytes = sum(t.nbytes for t in [*weight.parameters(), *weight.buffers()])
    assert 8 * n_bytes / array.size <= 1.05 * rank_bits(k)
    assert len(weight.protected.low) > 0
