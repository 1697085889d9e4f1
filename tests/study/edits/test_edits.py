"""Edits keep what they declare, and nothing more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotone.errors import InputError
from isotone.study.comparison import spearman
from isotone.study.edits import EDITS
from tests.builders.codebook_cases import codebooks, edited


@pytest.mark.parametrize("name", EDITS)
@given(case=codebooks(), seed=st.integers(0, 99))
def test_an_edit_keeps_what_it_declares(name, case, seed):
    codebook, counts = case
    before = codebook.copy()
    after = edited(name, codebook, counts, seed)
    assert np.array_equal(codebook, before), "its argument is changed"
    assert after.shape == codebook.shape
    assert np.isfinite(after).all()
    assert np.array_equal(after, edited(name, codebook, counts, seed)), "the seed does not decide"
    kept = EDITS[name].keeps
    if "order" in kept:
        assert (np.diff(after) > 0).all()
    if "signs" in kept:
        assert np.array_equal(np.sign(after), np.sign(codebook))
    if "values" in kept:
        assert np.array_equal(np.sort(after), codebook)


def test_an_edit_breaks_what_it_does_not_declare():
    """Somewhere among seeds: a declaration that could be stronger is a wrong one."""
    codebook, counts = np.array([-2.0, -1.1, -0.3, 0.2, 0.9, 2.5, 4.0]), np.arange(1, 8)
    for name, kind in EDITS.items():
        strong = {"strength": 1.0} if name == "gaussian_noise" else {}
        found = [edited(name, codebook, counts, seed, **strong) for seed in range(20)]
        ascending = all((np.diff(after) > 0).all() for after in found)
        signs = all(np.array_equal(np.sign(after), np.sign(codebook)) for after in found)
        values = all(np.array_equal(np.sort(after), codebook) for after in found)
        holds = {"order": ascending, "signs": signs, "values": values}
        assert {what for what, kept in holds.items() if kept} == set(kind.keeps), name


@given(codebooks(smallest=3), st.floats(-1, 1))
def test_spearmans_rho_can_be_asked_for(case, rho):
    codebook, counts = case
    found = spearman(codebook, edited("to_spearman", codebook, counts, rho=rho))
    n = len(codebook)
    coarsest = 12 / (n * (n * n - 1)) * n  # a transposition of neighbours moves by 12 / (n³ - n)
    assert abs(found - rho) <= coarsest


def test_windows_and_neighbours_do_not_carry_far():
    codebook, counts = np.arange(64.0), np.ones(64, np.int64)
    for seed in range(10):
        near = edited("permute_window", codebook, counts, seed, width=5)
        assert np.abs(near - codebook).max() <= 4
        swapped = edited("swap_neighbours", codebook, counts, seed)
        assert np.abs(swapped - codebook).max() == 1
        assert (swapped != codebook).sum() >= 62
    assert (edited("transpose", codebook, counts, n=3) != codebook).sum() in (4, 5, 6, 2, 3)
    assert np.array_equal(edited("transpose", codebook, counts, n=0), codebook)


def test_quantiles_of_the_own_distribution_are_the_codebook():
    codebook, counts = np.array([-1.0, 0.0, 0.5, 3.0]), np.array([2, 7, 9, 1])
    same = edited("quantile_match", codebook, counts, other=codebook, other_counts=counts)
    np.testing.assert_allclose(same, codebook, atol=1e-12)


def test_a_parameter_that_is_not_there_is_refused():
    with pytest.raises(InputError, match=r"edit permute has no parameter 'width'; it has none"):
        EDITS["permute"].with_parameters(width=3)
    for name, bad in (("power_warp", {"exponent": 0}), ("to_spearman", {"rho": 2})):
        with pytest.raises(InputError, match="expected"):
            edited(name, np.arange(3.0), np.ones(3, np.int64), **bad)


@pytest.mark.parametrize("name", EDITS)
def test_edits_that_draw_nothing_say_so(name):
    codebook, counts = np.linspace(-2.0, 3.0, 12) ** 3, np.arange(1, 13)
    found = {edited(name, codebook, counts, seed).tobytes() for seed in range(8)}
    assert (len(found) > 1) == EDITS[name].drawn
