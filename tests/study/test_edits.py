"""Edits keep what they declare, and corrections bring back what they name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import isotone
from isotone.errors import InputError
from isotone.study.affine import CORRECTIONS, at_error, corrected
from isotone.study.apply import on_tensors
from isotone.study.comparison import compare_codebooks, kendall, spearman
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
    edit = EDITS[name].with_parameters(**PARAMETERS.get(name, {}) | parameters)
    return edit(codebook, counts, np.random.default_rng(seed))


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


@pytest.mark.parametrize("name", EDITS)
def test_edits_that_draw_nothing_say_so(name):
    codebook, counts = np.linspace(-2.0, 3.0, 12) ** 3, np.arange(1, 13)
    found = {edited(name, codebook, counts, seed).tobytes() for seed in range(8)}
    assert (len(found) > 1) == EDITS[name].drawn


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


def test_edits_of_tensors_edit_each_codebook_of_a_stack():
    stack = np.random.default_rng(3).normal(size=(3, 20, 30)).astype(np.float32)
    tensor = isotone.cluster(stack, k=5, stack=True)
    edit = corrected(EDITS["permute"].with_parameters(), CORRECTIONS["moments"])
    after = on_tensors(edit, seed=4)(tensor)
    rng = np.random.default_rng(4)
    expected = [
        edit(c.astype(float), n, rng) for c, n in zip(tensor.codebook, tensor.counts, strict=True)
    ]
    assert after.dtype == np.float32
    np.testing.assert_array_equal(after, np.stack(expected).astype(np.float32))
    assert tensor.with_codebook(after).ranks is tensor.ranks
    single = isotone.cluster(stack[0], k=5)
    assert on_tensors(edit, seed=4)(single).shape == (5,)
