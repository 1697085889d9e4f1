"""Ranks packed row by row come back, from the native module and from torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from isotone.models.packed.ranks import _shifted, pack_rows, row_bytes, unpack_rows


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("n_columns", [1, 7, 8, 21])
def test_torch_unpacks_as_the_native_module_does(bits, n_columns):
    rng = np.random.default_rng(bits)
    ranks = rng.integers(0, 1 << bits, (6, n_columns)).astype(np.uint8)
    cuts = np.split(ranks.reshape(-1), [1, 2, 4 * n_columns])
    packed = pack_rows(cuts, 6, n_columns, bits)
    assert packed.shape == (6, row_bytes(n_columns, bits))
    assert torch.equal(unpack_rows(packed, n_columns, bits), torch.from_numpy(ranks))
    elsewhere = _shifted(packed, bits).reshape(6, -1)[:, :n_columns]
    assert torch.equal(elsewhere, torch.from_numpy(ranks))
