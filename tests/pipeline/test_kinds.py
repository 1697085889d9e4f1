"""Kinds of matrices: names without the number of the layer, and totals that add up."""

from __future__ import annotations

import math

import pytest

from isotone.pipeline.inspect import inspect
from isotone.pipeline.kinds import kinds_of, summarise_kinds
from tests.builders.overlays import make_pair


def test_experts_that_lie_apart_are_one_kind():
    names = ["h.0.experts.1.up", "h.1.experts.0.up.weight", "h.1.router.weight"]
    assert [*kinds_of(names).values()] == ["experts.*.up", "experts.*.up", "router"]


def test_a_kind_names_its_stack_where_there_are_several():
    names = ["encoder.block.0.q.weight", "decoder.block.0.q.weight", "decoder.block.1.q.weight"]
    assert [*kinds_of(names).values()] == ["encoder.block.*.q"] + 2 * ["decoder.block.*.q"]


def test_the_totals_are_those_of_the_directory(compressed):
    found = inspect(compressed)
    kinds = summarise_kinds(found.clustered)
    assert len({kind.kind for kind in kinds}) == len(kinds) < len(found.clustered)
    for name in ("n_weights", "n_protected", "n_tensors"):
        assert sum(getattr(kind, name) for kind in kinds) == getattr(found.summary, name)
    bits = sum(kind.bits_per_weight * kind.n_weights for kind in kinds)
    assert bits / found.summary.n_weights == pytest.approx(found.summary.bits_per_weight, rel=1e-12)
    farthest = max(kind.farthest_deviations or 0.0 for kind in kinds)
    assert farthest == max(abs(w.deviations) for t in found.clustered for w in t.protected)


def test_of_an_overlay_kinds_say_how_far_centroids_moved(tmp_path):
    pair = make_pair(tmp_path)
    assert all(kind.moved is None for kind in summarise_kinds(inspect(pair.base).clustered))
    reports = inspect(pair.healed).clustered
    moved = {kind.kind: kind.moved for kind in summarise_kinds(reports)}
    for report in reports:  # each is a kind of its own here
        kind = report.record.name.removesuffix(".weight")
        assert moved[kind] == pytest.approx(report.movement.root_mean_square, rel=1e-12)
    assert math.isclose(moved["c"], 0.0)
