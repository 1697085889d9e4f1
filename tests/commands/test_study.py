"""`isotone study`: what it prints, and what it refuses."""

from __future__ import annotations

import pytest

from tests.builders.studies import N_RUNS, PLAN


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ("papr", "expected a .toml file, or one of controls, paper, quick"),
        (PLAN.replace("8]", "300]"), "k is 300"),
        (PLAN.replace("context = 24", "context = 65"), "takes at most 64"),
        (PLAN.replace("windows = 3", "windows = 0"), "windows 0"),
        (PLAN.replace("layer = 1", "layer = 9"), "no mlp.down_proj in layer 9"),
        (PLAN.replace(", layer = 1", ""), "needs a layer"),
        (PLAN.replace('"permute"]', '{edit = "power_warp", exponent = 0}]'), "exponent is 0"),
        (PLAN.replace('"mlp.*"', '"mlp.x"'), "matches none of the matrices"),
        (PLAN + 'tasks = "none.jsonl"', "cannot be read as questions"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(isotone, language_models, tmp_path, plan, said):
    path = plan
    if "\n" in plan:
        path = tmp_path / "plan.toml"
        path.write_text(plan, "utf-8")
    models = language_models
    run = isotone(
        *("study", "run", path, tmp_path / "results"),
        *("--model", models.dense, "--text", models.text, "--json"),
    )
    assert (run.code, run.out, run.err.count("\n")) == (2, "", 1)
    assert said in run.err


def test_the_command_says_what_it_did(isotone, language_models, tmp_path):
    results, plan = tmp_path / "results", tmp_path / "plan.toml"
    plan.write_text(PLAN, "utf-8")
    given = ("study", "run", plan, results, "--model", language_models.dense)
    run = isotone(*given, "--text", language_models.text, "--json")
    assert run.code == 0
    assert (run.json["n_done"], run.json["n_total"]) == (N_RUNS, N_RUNS)
    shown = isotone(*given, "--text", language_models.text)
    assert f"{N_RUNS} of {N_RUNS} runs measured" in shown.out.replace("\n", " ")


def test_list_shows_plans_and_edits(isotone):
    run = isotone("study", "list", "--json")
    assert set(run.json["plans"]) >= {"paper", "controls", "quick"}
    assert run.json["edits"]["permute"] == {"keeps": ["values"], "parameters": []}
    assert run.json["corrections"] == ["none", "moments", "least-squares", "range"]
    shown = isotone("study", "list")
    assert shown.code == 0
    assert "permute_within_sign" in shown.out
