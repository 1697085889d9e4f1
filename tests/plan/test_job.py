"""One plan for every caller: ties are found once, and settings change without the shards."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from safetensors import safe_open

from isotone.core.scales.balancing import ScaleRule
from isotone.models.open_source import open_source
from isotone.pipeline.compress import compress
from isotone.pipeline.decompress import decompress
from isotone.pipeline.verify import verify
from isotone.plan import job
from isotone.plan.settings import Selection
from isotone.plan.tensors import Clustered, Kept, Tied
from tests.builders.checkpoints import CLUSTERED, Bf16, weights, write_model


def records_of(directory, kind="clustered"):
    manifest = json.loads((directory / "isotone.json").read_text())
    return {record["name"]: record for record in manifest[kind]}


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
    source = open_source(tied_model(tmp_path / "model", {"tie_word_embeddings": True}))
    searches, find = [], job.find_tied
    monkeypatch.setattr(job, "find_tied", lambda one: searches.append(one) or find(one))
    (tied,) = job.plan_job(source, Selection()).tied
    assert isinstance(tied, Tied)
    assert (tied.tensor.name, tied.to) == ("lm_head.weight", "model.embed_tokens.weight")
    assert searches == [source]
    untied = job.plan_job(source, Selection(), tied_to={})
    assert all(isinstance(each, Clustered) for each in untied.tensors)
    assert searches == [source]


def tied_model(path, config, head=None):
    embedding = Bf16(weights(90, 40, seed=1))
    tensors = {"model.embed_tokens.weight": embedding, "model.up.weight": Bf16(weights(40, 40))}
    tensors["lm_head.weight"] = embedding if head is None else head
    return write_model(path, tensors, config=config)


@pytest.mark.parametrize(
    "config", [{"tie_word_embeddings": True}, {"text_config": {"tie_word_embeddings": True}}]
)
def test_a_tied_copy_is_dropped(config, tmp_path):
    model = tied_model(tmp_path / "model", config)
    summary = compress(model, tmp_path / "out")
    assert (summary.n_tensors, summary.n_kept, summary.coverage) == (2, 0, 1.0)
    record = records_of(tmp_path / "out", "kept")["lm_head.weight"]
    assert record["tied_to"] == "model.embed_tokens.weight"
    assert record["file"] == ""
    assert verify(tmp_path / "out", against=model).ok
    decompress(tmp_path / "out", tmp_path / "dense")
    with safe_open(tmp_path / "dense" / "model.safetensors", "np") as file:
        assert set(file.keys()) == {"model.embed_tokens.weight", "model.up.weight"}


@pytest.mark.parametrize("why", ["not tied", "other bytes", "other shape"])
def test_what_only_looks_tied_stays(why, tmp_path, monkeypatch):
    monkeypatch.setattr("isotone.checkpoint.source.tied._PIECE_WEIGHTS", 1000)
    config = {"tie_word_embeddings": why != "not tied"}
    rows = weights(90, 40, seed=1)[: 80 if why == "other shape" else 90]
    rows[-1, -1] += why == "other bytes"
    head = None if why == "not tied" else Bf16(rows)
    compress(tied_model(tmp_path / "model", config, head), tmp_path / "out")
    assert "lm_head.weight" in records_of(tmp_path / "out")
