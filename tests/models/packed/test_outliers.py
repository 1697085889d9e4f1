"""Protected weights are found by row."""

from __future__ import annotations

import numpy as np
import torch

from isotone.models.packed.outliers import ProtectedWeights


def test_protected_positions_over_many_blocks():
    n_columns, n_rows = 1000, 400
    rng = np.random.default_rng(2)
    positions = np.sort(rng.choice(n_columns * n_rows, 900, replace=False))
    held = ProtectedWeights(positions, torch.arange(900), n_columns * n_rows)
    assert held.low.nbytes == 2 * 900
    assert np.array_equal(held.positions().numpy(), positions)
    rows = torch.tensor([399, 5, 5, 66, 0])
    places, entries = held.in_rows(rows, n_columns)
    found = {(int(p), int(e)) for p, e in zip(places, entries, strict=True)}
    assert found == {
        (i * n_columns + int(position) % n_columns, entry)
        for i, row in enumerate(rows.tolist())
        for entry, position in enumerate(positions)
        if position // n_columns == row
    }
