"""Studies of live models: what is measured, kept, repeated and gone on with."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import isotone
from isotone.engine.local import LocalEngine
from isotone.engine.progress import Silent
from isotone.errors import InputError
from isotone.evaluation.run import evaluate
from isotone.evaluation.scoring import compare, logits_of
from isotone.models.language_model.files import open_files
from isotone.models.language_model.load import load_model
from isotone.models.swap import hold_ranks, swapped
from isotone.study.matrices import Edited, Matrix, edit_matrices
from isotone.study.passes import Passes, blocks
from isotone.study.plan import parse_plan
from isotone.study.protocols import Place, expand
from isotone.study.run import RUNS_FILE, run_study
from isotone.study.sources import Sources, places_in
from isotone.study.subject import Subject
from tests.builders import language_model, tiny_models

PLAN = """
[clustering]
k = [5, 8]
[evaluation]
context = 24
windows = 3
[[grid]]
name = "layers"
protocol = "layer"
edits = ["sorted_normal", "permute"]
corrections = ["moments", "none"]
[[grid]]
name = "types"
protocol = "type"
k = 8
matrices = ["mlp.*"]
edits = ["reverse", {edit = "quantile_match", layer = 1}]
at_error = 0.3
[[grid]]
name = "more"
protocol = "progressive"
k = 8
edits = ["gaussian_noise"]
orders = ["random"]
seeds = 2
"""
N_RUNS = 2 * 2 * 2 * 2 + 3 * 2 + 2 * 2


def study(plan, results, models, **options):
    given = {"model": models.dense, "text": models.text} | options
    return run_study(parse_plan(plan, "plan", "plan.toml"), results, **given)


def records(results):
    """By what they are of; all but how long it took."""
    lines = (results / RUNS_FILE).read_text("utf-8").splitlines()
    found = {}
    for line in lines:
        record = json.loads(line)
        assert record.pop("seconds") > 0
        key = json.dumps([record["k"], record["run"]], sort_keys=True)
        assert key not in found, "measured twice"
        found[key] = record
    return found


@pytest.fixture(scope="module")
def studied(language_models, tmp_path_factory):
    """Results of PLAN. Not to be written to."""
    results = tmp_path_factory.mktemp("study") / "results"
    summary = study(PLAN, results, language_models)
    assert (summary.n_done, summary.n_total, summary.n_skipped) == (N_RUNS, N_RUNS, 0)
    assert summary.n_measured == N_RUNS + 2
    return results


@pytest.fixture
def subject(studied, language_models):
    """The K = 8 clustering, and every run of PLAN on it."""
    plan = parse_plan(PLAN, "plan", "plan.toml")
    models = language_models
    sources = Sources.open(
        plan, models.dense, models.text, LocalEngine(), "float32", "cpu", Silent()
    )
    clusterings = sources.clusterings(studied, LocalEngine(), Silent())
    sequences = expand(plan, list(clusterings), places_in(sources.manifest(clusterings)))
    runs = [run for sequence in sequences for run in sequence if run.k == 8]
    return Subject(clusterings[8], 8, sources.windows, sources.provenance), runs, sources


def test_the_unedited_model_is_what_evaluate_says(studied, language_models):
    for k in (5, 8):
        own = studied / "clusterings" / f"k{k}"
        expected = evaluate(own, language_models.text, context=24, windows=3)
        (record,) = (r for r in records(studied).values() if r["k"] == k and not r["run"])
        assert record["perplexity"] == record["unedited_perplexity"] == expected.perplexity
        assert (record["kl"], record["top1_agreement"], record["n_tokens"]) == (0.0, 1.0, 3 * 23)
        assert record["drift"]["growth"] == record["drift"]["cosine"] == pytest.approx([1.0, 1.0])


def test_records_are_what_a_swap_and_a_comparison_say(studied, subject):
    _, runs, sources = subject
    kept = records(studied)
    directory = studied / "clusterings" / "k8"
    files = open_files(directory)
    model, reference = load_model(files), load_model(files)
    held = hold_ranks(model)

    tensors = {name: weight.clustered_tensor() for name, weight in held.items()}
    matrices = {
        name: Matrix.of(name, Place.of(name), tensor)
        for name, tensor in tensors.items()
        if Place.of(name)
    }
    for run in runs[:: len(runs) // 6]:
        record = kept[json.dumps([8, asdict(run)], sort_keys=True)]
        edited = edit_matrices(run, matrices)
        with swapped(model, {one.matrix.name: one.stored for one in edited}) as names:
            tokens = compare(model, reference, sources.windows)
            assert record["n_matrices"] == len(names)
            pairs = [
                (model.get_parameter(n).detach(), reference.get_parameter(n).detach())
                for n in names
            ]
            squares = sum(float((old.double() ** 2).sum()) for _, old in pairs)
            errors = sum(float(((new - old).double() ** 2).sum()) for new, old in pairs)
        assert record["loss"] == pytest.approx(tokens.loss.mean(), rel=1e-6)
        assert record["kl"] == pytest.approx(tokens.divergence.mean(), rel=1e-5, abs=1e-9)
        assert record["top1_agreement"] == tokens.same_top.mean()
        exact = sum(len(tensors[name].protected_index) for name in names)
        if not exact:  # those squares are not of what a codebook gives
            assert record["relative_error"] == pytest.approx(np.sqrt(errors / squares), rel=1e-4)


def test_error_is_of_the_weights_factors_and_exact_ones_included():
    """With factors a centroid's square does not count as often as weights have it."""

    rng = np.random.default_rng(5)
    weights = (rng.normal(size=(40, 30)) * np.exp(rng.normal(size=(40, 1)))).astype(np.float32)
    weights[3, 4] = 90.0
    tensor = isotone.cluster(weights, k=6, scale="both", protect=0.01)
    matrix = Matrix.of("w", Place(0, "w"), tensor)
    new = np.sort(rng.normal(size=6)).astype(np.float32)
    before, after, product, error = Edited(matrix, new[None].astype(np.float64)).products()
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


def test_drift_is_that_of_the_hidden_states(subject):
    its, runs, sources = subject
    run = next(run for run in runs if run.correction == "none" and run.layers == (0,))
    record = its.measure(run)

    with torch.no_grad():
        tokens = torch.from_numpy(sources.windows)
        captured = []
        hooks = [
            block.register_forward_hook(lambda *call: captured.append(call[2].double()))
            for block in blocks(its._model)
        ]
        logits_of(its._model, tokens)
        edited = edit_matrices(run, its._matrices)
        with swapped(its._model, {one.matrix.name: one.stored for one in edited}):
            logits_of(its._model, tokens)
        for hook in hooks:
            hook.remove()
    n = its._passes.n_layers
    for layer in range(n):
        then, now = captured[layer], captured[n + layer]
        assert record.drift.rms[layer] == pytest.approx(float((now**2).mean().sqrt()), rel=1e-5)
        assert record.drift.mean[layer] == pytest.approx(float(now.mean()), abs=1e-5)
        growth = (now.norm(dim=-1) / then.norm(dim=-1)).log().mean().exp()
        assert record.drift.growth[layer] == pytest.approx(float(growth), rel=1e-5)
        cosine = torch.nn.functional.cosine_similarity(now, then, dim=-1).mean()
        assert record.drift.cosine[layer] == pytest.approx(float(cosine), rel=1e-5)


@pytest.mark.parametrize("kind", tiny_models.CONFIGS)
def test_a_pass_that_begins_at_the_edit_gives_the_same_bits(kind, tmp_path):
    dense = tiny_models.write_tiny(kind, tmp_path / "dense")
    isotone.compress(dense, tmp_path / "clustered", k=6)
    model = transformers_model(tmp_path / "clustered")
    passes = Passes(model, tiny_models.ids().numpy().astype(np.int64))
    assert passes.n_layers == 2
    before = [parameter.clone() for parameter in model.parameters()]
    last = [name for name in hold_ranks(model) if (place := Place.of(name)) and place.layer == 1]
    assert last
    with swapped(model, dict.fromkeys(last, lambda tensor: tensor.codebook[..., ::-1].copy())):
        whole = passes.compare(1, reuse=False)
        part = passes.compare(1)
    for name in vars(whole[0]):
        assert np.array_equal(getattr(whole[0], name), getattr(part[0], name)), name
    assert whole[1] == part[1]
    assert whole[0].divergence.mean() > 0
    assert part[1].cosine[0] == pytest.approx(1.0)
    assert part[1].cosine[1] < 0.9999
    unedited, _ = passes.compare(2)
    assert unedited.divergence.max() == 0.0, "a pass has changed what was kept, or the model"
    for was, parameter in zip(before, model.parameters(), strict=True):
        assert torch.equal(was, parameter)


def transformers_model(directory):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def test_held_ranks_change_nothing(language_models):
    model = transformers_model(language_models.clustered)
    name = "model.layers.1.mlp.up_proj.weight"

    def edited():
        with swapped(model, {name: lambda tensor: tensor.codebook[::-1].copy()}):
            return model.get_parameter(name).clone()

    read, held = edited(), hold_ranks(model)
    codebook = held[name].codebook.clone()
    assert torch.equal(edited(), read)
    assert torch.equal(held[name].codebook, codebook)
    with pytest.raises(InputError, match="expected"), swapped(model, {name: np.ones(3)}):
        pass
    assert torch.equal(held[name].codebook, codebook)


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


def test_a_model_with_other_layers_than_its_names_say_is_refused(monkeypatch, subject):
    its, _, sources = subject
    monkeypatch.setattr(Passes, "n_layers", property(lambda _: 1))
    with pytest.raises(InputError, match="runs through 1 layers"):
        Subject(its._files.directory, 8, sources.windows, sources.provenance)


def test_what_is_drawn_for_a_matrix_does_not_depend_on_the_others(subject):

    its, runs, _ = subject
    alone = next(run for run in runs if run.protocol == "layer" and run.edit == "permute")
    both = replace(alone, layers=(0, 1))
    first = {one.matrix.name: one.codebook for one in edit_matrices(alone, its._matrices)}
    for one in edit_matrices(both, its._matrices):
        if one.matrix.name in first:
            assert np.array_equal(one.codebook, first[one.matrix.name])
    draws = {np.argsort(codebook[0]).tobytes() for codebook in first.values()}
    assert len(draws) > 1, "all matrices have the same permutation"


# The command


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


def test_the_command_says_what_it_did(isotone, studied, language_models, tmp_path):

    results = shutil.copytree(studied, tmp_path / "results")
    plan = tmp_path / "plan.toml"
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
