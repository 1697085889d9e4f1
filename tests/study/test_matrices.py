"""Matrices as edits see them: what is counted, what is drawn, and the error of the weights."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest

import isotone
from isotone.study.edits import EDITS
from isotone.study.edits.corrections import CORRECTIONS, corrected
from isotone.study.matrices import EditedMatrix, StudiedMatrix, edit_matrices
from isotone.study.protocols import MatrixPlace
from isotone.study.record import StudyRun


def test_error_is_of_the_weights_scales_and_exact_ones_included():
    """With scales a centroid's square does not count as often as weights have it."""

    rng = np.random.default_rng(5)
    weights = (rng.normal(size=(40, 30)) * np.exp(rng.normal(size=(40, 1)))).astype(np.float32)
    weights[3, 4] = 90.0
    tensor = isotone.cluster(weights, k=6, scale="both", protect=0.01)
    matrix = StudiedMatrix.of("w", MatrixPlace(0, "w"), tensor)
    new = np.sort(rng.normal(size=6)).astype(np.float32)
    before, after, product, error = EditedMatrix(matrix, new[None].astype(np.float64)).products()
    free = np.ones(tensor.n_weights, bool)
    free[tensor.protected_index] = False
    assert not free.all()
    old, changed = (
        t.dense().reshape(-1)[free].astype(np.float64) for t in (tensor, tensor.with_codebook(new))
    )
    assert before == pytest.approx((old**2).sum(), rel=1e-5)
    assert after == pytest.approx((changed**2).sum(), rel=1e-5)
    assert product == pytest.approx((old * changed).sum(), rel=1e-5)
    assert error == pytest.approx(((changed - old) ** 2).sum(), rel=1e-5)


def test_what_is_drawn_for_a_matrix_does_not_depend_on_the_others(studied_model):

    its, runs, _ = studied_model
    alone = next(run for run in runs if run.protocol == "layer" and run.edit == "permute")
    both = replace(alone, layers=(0, 1))
    first = {one.matrix.name: one.codebook for one in edit_matrices(alone, its._matrices)}
    for one in edit_matrices(both, its._matrices):
        if one.matrix.name in first:
            assert np.array_equal(one.codebook, first[one.matrix.name])
    draws = {np.argsort(codebook[0]).tobytes() for codebook in first.values()}
    assert len(draws) > 1, "all matrices have the same permutation"


def test_edits_of_a_stack_edit_each_of_its_codebooks():
    stack = np.random.default_rng(3).normal(size=(3, 20, 30)).astype(np.float32)
    tensor = isotone.cluster(stack, k=5, stack=True)
    matrix = StudiedMatrix.of("experts", MatrixPlace(0, "experts"), tensor)
    (after,) = edit_matrices(a_run("permute", seed=4), {"experts": matrix})
    rng = np.random.default_rng([4, zlib.crc32(b"experts")])
    edit = corrected(EDITS["permute"].with_parameters(), CORRECTIONS["moments"])
    expected = [
        edit(c.astype(float), n, rng) for c, n in zip(tensor.codebook, tensor.counts, strict=True)
    ]
    assert after.stored.dtype == np.float32
    np.testing.assert_array_equal(after.stored, np.stack(expected).astype(np.float32))
    assert tensor.with_codebook(after.stored).ranks is tensor.ranks
    single = StudiedMatrix.of("w", MatrixPlace(0, "w"), isotone.cluster(stack[0], k=5))
    (after,) = edit_matrices(a_run("permute", types=("w",)), {"w": single})
    assert after.stored.shape == (5,)


def a_run(edit, types=("experts",), seed=0):
    return StudyRun(
        grid="grid",
        protocol="layer",
        k=5,
        layers=(0,),
        types=types,
        edit=edit,
        parameters={},
        at_error=None,
        correction="moments",
        order=None,
        seed=seed,
        tasks=(),
        until=None,
    )
