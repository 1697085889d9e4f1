"""Running a plan: what is kept, repeated, refused and continued."""

from __future__ import annotations

import json
import shutil

import pytest

from isotone.errors import InputError
from isotone.study.run import RUNS_FILE
from tests.builders import language_model
from tests.builders.studies import N_RUNS, PLAN, records, study


def test_repeating_a_plan_gives_the_same_to_the_last_digit(studied, language_models, tmp_path):
    study(PLAN, tmp_path / "again", language_models)
    assert records(tmp_path / "again") == records(studied)


def test_several_processes_measure_the_same(studied, language_models, tmp_path):
    summary = study(PLAN, tmp_path / "two", language_models, workers=2)
    assert summary.n_done == N_RUNS
    two, one = records(tmp_path / "two"), records(studied)
    for record in [*two.values(), *one.values()]:
        del record["provenance"]["n_threads"]
    assert two == one


@pytest.mark.parametrize("kept", [0, 1, 11])
def test_a_killed_study_goes_on(studied, language_models, tmp_path, kept):
    whole = (studied / RUNS_FILE).read_bytes().splitlines(keepends=True)
    (tmp_path / "on").mkdir()
    torn = whole[kept][: len(whole[kept]) // 2]
    (tmp_path / "on" / RUNS_FILE).write_bytes(b"".join(whole[:kept]) + torn)
    summary = study(PLAN, tmp_path / "on", language_models)
    assert summary.n_measured == len(whole) - kept
    assert records(tmp_path / "on") == records(studied)
    assert study(PLAN, tmp_path / "on", language_models).n_measured == 0


def test_a_sequence_ends_where_the_model_has_collapsed(language_models, tmp_path):
    """And goes on neither then nor when the study is run again."""
    plan = PLAN[: PLAN.index("[[grid]]")] + (
        '[[grid]]\nprotocol = "progressive"\nk = 8\norders = "first"\nuntil = 1.5\nseeds = 2\n'
        'edits = [{edit = "gaussian_noise", strength = [1e-6, 1e38]}]\ncorrections = "none"\n'
    )
    for measured in (2 + 2 * 2 + 2 * 1, 0):
        summary = study(plan, tmp_path / "results", language_models)
        assert (summary.n_total, summary.n_done, summary.n_skipped) == (8, 6, 2)
        assert summary.n_measured == measured
    collapsed = [r for r in records(tmp_path / "results").values() if r["perplexity"] is None]
    assert len(collapsed) == 2
    assert all(record["loss"] is record["kl"] is None for record in collapsed)


def test_a_clustered_model_is_studied_as_it_is(language_models, tmp_path):
    summary = study(PLAN, tmp_path / "results", language_models, model=language_models.clustered)
    assert summary.n_done == summary.n_total == 8 + 6 + 4
    assert not (tmp_path / "results" / "clusterings").exists()
    assert {record["k"] for record in records(tmp_path / "results").values()} == {6}


def test_tasks_are_run_on_the_edited_model(language_models, tmp_path):
    pytest.importorskip("lm_eval")
    questions = tmp_path / "questions.jsonl"
    lines = [
        {"query": "the model", "choices": ["is", "has", "keeps"], "gold": n % 3}
        for n in "012"
        for n in [int(n)]
    ]
    questions.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    plan = PLAN[: PLAN.index("[[grid]]")] + (
        f'[[grid]]\nprotocol = "together"\nk = 8\nedits = "permute"\ntasks = "{questions}"\n'
    )
    study(plan.replace('"permute"', '["permute"]'), tmp_path / "results", language_models)
    (record,) = (r for r in records(tmp_path / "results").values() if r["run"])
    assert record["tasks"]["questions"]["n"] == 3


def test_results_of_another_study_are_not_mixed(studied, language_models, tmp_path):
    results = shutil.copytree(studied, tmp_path / "results")
    (tmp_path / "other.txt").write_text(language_model.text(seed=4), "utf-8")
    with pytest.raises(InputError, match=r"another study.*text was text\.txt, is other\.txt"):
        study(PLAN, results, language_models, text=tmp_path / "other.txt")
    assert records(results) == records(studied)
    summary = study(PLAN, results, language_models, text=tmp_path / "other.txt", overwrite=True)
    assert summary.n_measured == N_RUNS + 2
    more = PLAN + '[[grid]]\nname = "new"\nprotocol = "together"\nedits = ["permute"]\n'
    summary = study(more, results, language_models, text=tmp_path / "other.txt")
    assert (summary.n_measured, summary.n_done) == (2, N_RUNS + 2)
