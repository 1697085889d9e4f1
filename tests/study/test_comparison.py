"""How far an edited codebook is from the original."""

from __future__ import annotations

import numpy as np
import pytest

from isotone.study.comparison import compare_codebooks, kendall, spearman


def test_comparison_by_hand():
    codebook, counts = np.array([-1.0, 0.0, 2.0]), np.array([2, 1, 1])
    swapped = np.array([-1.0, 2.0, 0.0])
    found = compare_codebooks(codebook, swapped, counts)
    assert (found.spearman, found.kendall) == (pytest.approx(0.5), pytest.approx(1 / 3))
    assert found.relative_error == pytest.approx(np.sqrt(8 / 6))
    assert found.cosine == pytest.approx(2 / 6)
    assert found.mean_shift == 0.0
    assert found.scale == pytest.approx(1.0)
    assert spearman(codebook, codebook[::-1]) == kendall(codebook, codebook[::-1]) == -1.0
    assert spearman(codebook[:1], codebook[:1]) == kendall(codebook[:1], codebook[:1]) == 1.0
