"""Corrections restore what they name, and keep the order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotone.study.comparison import compare_codebooks
from isotone.study.edits import EDITS
from isotone.study.edits.corrections import CORRECTIONS, at_error, corrected
from tests.builders.codebook_cases import PARAMETERS, codebooks, edited


@pytest.mark.parametrize("name", EDITS)
@given(case=codebooks(smallest=3))
def test_moments_come_back_after_any_edit(name, case):
    codebook, counts = case
    edit = EDITS[name].with_parameters(**PARAMETERS.get(name, {}))
    after = corrected(edit, CORRECTIONS["moments"])(codebook, counts, np.random.default_rng(1))
    comparison = compare_codebooks(codebook, after, counts)
    assert comparison.mean_shift == pytest.approx(0.0, abs=1e-6)
    assert comparison.scale == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("correction", CORRECTIONS)
@given(case=codebooks(smallest=2), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_corrections_keep_order_and_undo_an_affine_change(correction, case, scale, shift):
    codebook, counts = case
    back = CORRECTIONS[correction](scale * codebook + shift, codebook, counts)
    assert (np.diff(back) > 0).all()
    if correction != "none":
        np.testing.assert_allclose(back, codebook, rtol=1e-5, atol=1e-7)


@given(codebooks(smallest=3), st.integers(0, 9))
def test_least_squares_is_nearest(case, seed):
    codebook, counts = case
    rng = np.random.default_rng(seed)
    after = edited("sorted_normal", codebook, counts, seed)
    nearest = CORRECTIONS["least-squares"](after, codebook, counts)

    def error(c):
        return np.average((c - codebook) ** 2, weights=counts)

    for _ in range(5):
        scale, shift = np.exp(rng.normal(0, 0.3)), rng.normal(0, 0.1)
        assert error(nearest) <= error(scale * nearest + shift) + 1e-12


@pytest.mark.parametrize("correction", CORRECTIONS)
@given(case=codebooks(smallest=3), wanted=st.floats(0.01, 2.0))
def test_edits_can_be_taken_to_the_same_error(correction, case, wanted):
    """To what is asked, or as far as the edit itself goes."""
    codebook, counts = case
    for name in ("permute", "sorted_normal", "gaussian_noise"):
        edit, correct = EDITS[name].with_parameters(), CORRECTIONS[correction]
        whole, part = (
            one(codebook, counts, np.random.default_rng(2))
            for one in (corrected(edit, correct), at_error(edit, correct, wanted))
        )
        reached = compare_codebooks(codebook, part, counts).relative_error
        farthest = compare_codebooks(codebook, correct(whole, codebook, counts), counts)
        assert reached <= wanted * (1 + 1e-6) or reached == pytest.approx(wanted, rel=1e-6)
        if farthest.relative_error > wanted and correction in ("none", "moments"):
            assert reached == pytest.approx(wanted, rel=1e-6)
        if name == "sorted_normal":
            assert (np.diff(part) > 0).all()
