"""One plan for every caller: ties are found once, and settings change without the shards."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isotone.core.scales.balancing import ScaleRule
from isotone.models.open_source import open_source
from isotone.plan import job
from isotone.plan.options import selection_of
from isotone.plan.settings import Selection
from isotone.plan.tensors import Clustered, Kept, Tied
from tests.builders.checkpoints import CLUSTERED, Bf16, weights, write_model
from tests.plan.test_tied import EMBEDDING, HEAD, VOCABULARY, tied_model


def test_each_tensor_is_planned_once_and_each_group_is_of_one_shard(model):
    plan = job.plan_job(open_source(model), Selection())
    assert [each.tensor for each in plan.tensors] == list(plan.source.tensors)
    assert {each.tensor.name: each.n_matrices for each in plan.clustered} == CLUSTERED
    assert [each for group in plan.groups for each in group] == plan.clustered
    stored = [tensor for shard in plan.shards for tensor in shard.tensors]
    assert len(stored) == len(plan.tensors) - len(plan.tied)


def test_other_settings_change_clustered_tensors_alone(model):
    plan = job.plan_job(open_source(model), Selection())
    other = plan.changed(lambda each: replace(each, settings=replace(each.settings, lambda_=0.5)))
    assert {each.settings.lambda_ for each in other.clustered} == {0.5}
    assert [s.name for s in other.shards] == [s.name for s in plan.shards]
    for before, after in zip(plan.tensors, other.tensors, strict=True):
        assert (before == after) == isinstance(before, Kept)


def test_columns_of_a_matrix_with_a_row_per_token_are_not_scaled_unless_asked_for(tmp_path):
    tensors = {"embed.weight": Bf16(weights(90, 40)), "up.weight": Bf16(weights(80, 40))}
    source = open_source(write_model(tmp_path / "model", tensors, config={"vocab_size": 90}))
    for asked, given in ((ScaleRule.AUTO, ScaleRule.ROW), (ScaleRule.BOTH, ScaleRule.BOTH)):
        settings = replace(Selection().settings, scale=asked)
        embedding, other = job.plan_job(source, Selection(settings)).clustered
        assert (embedding.settings.scale, other.settings.scale) == (given, asked)


def test_ties_are_searched_for_once_and_not_where_they_are_given(tmp_path, monkeypatch):
    source = open_source(tied_model(tmp_path / "model", VOCABULARY))
    searches, find = [], job.find_tied
    monkeypatch.setattr(job, "find_tied", lambda one: searches.append(one) or find(one))
    (tied,) = job.plan_job(source, Selection()).tied
    assert isinstance(tied, Tied)
    assert (tied.tensor.name, tied.to) == ("lm_head.weight", "model.embed_tokens.weight")
    assert searches == [source]
    untied = job.plan_job(source, Selection(), tied_to={})
    assert all(isinstance(each, Clustered) for each in untied.tensors)
    assert searches == [source]


@pytest.mark.parametrize("glob", [EMBEDDING, "lm_head", "*head*"])
def test_a_glob_that_matches_a_copy_matches_what_it_repeats(glob, tmp_path):
    source = open_source(tied_model(tmp_path / "model", VOCABULARY))

    def plan(**options):
        tensors = job.plan_job(source, selection_of(**options)[0]).tensors
        return {each.tensor.name: each for each in tensors}

    assert isinstance(plan(exclude=[glob])[EMBEDDING], Kept)
    included = plan(include=[glob])
    assert isinstance(included[EMBEDDING], Clustered)
    assert isinstance(included["model.up.weight"], Kept)
    asked = plan(settings=[f"{glob}:k=7"])
    assert (asked[EMBEDDING].settings.k, asked["model.up.weight"].settings.k) == (7, 16)
    assert all(isinstance(each[HEAD], Tied) for each in (included, asked))
