"""Every command that runs text through a model begins it as the tokenizer does, and says so."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

import isotone as package
from tests.builders import language_model
from tests.builders.seen_tokens import seen_tokens

CONTEXT = 24
PLAN = """
[clustering]
k = 5
[evaluation]
context = 24
windows = 2
[[grid]]
name = "layers"
protocol = "layer"
edits = ["reverse"]
layers = [0]
"""
BEFORE = {"none": (), "one": ("<s>",), "two": ("<mask>", "<s>")}
COMMANDS = (
    "eval",
    "calibrate",
    "calibrate self",
    "compress",
    "heal",
    "heal self",
    "study",
    "frontier",
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """For a number of tokens before every text: a dense and a clustered model, a text and a plan.

    All have the same weights and the same vocabulary.
    """
    made = {}

    def make(kind):
        if kind not in made:
            at = tmp_path_factory.mktemp(f"begins-{kind}")
            names = {"bos_token": "<s>", "mask_token": "<mask>"}
            tokenizer = language_model.tokenizer(before=BEFORE[kind], after=("<end>",), **names)
            dense = language_model.write_language_model(at / "dense", tokenizer)
            package.compress(dense, at / "clustered", k=5)
            (at / "text.txt").write_text(language_model.text(2000), "utf-8")
            (at / "plan.toml").write_text(PLAN, "utf-8")
            made[kind] = SimpleNamespace(
                dense=dense,
                clustered=at / "clustered",
                text=at / "text.txt",
                plan=at / "plan.toml",
                prefix=tokenizer.convert_tokens_to_ids(list(BEFORE[kind])),
                bos=tokenizer.bos_token_id,
                tokenizer=tokenizer,
            )
        return made[kind]

    return make


def arguments(command, given, out):
    """A command line that runs a text through a model into `out`."""
    text, context = ("--text", given.text), ("--context", CONTEXT)
    heal = ("heal", given.clustered, out, *context, "--teacher", given.dense, "--steps", 2)
    return {
        "eval": ("eval", given.clustered, *text, *context, "--reference", given.dense),
        "calibrate": ("calibrate", given.dense, out, *text),
        "calibrate self": ("calibrate", given.dense, out),
        "compress": ("compress", given.dense, out, "--k", 4, "--calibrate", given.text),
        "heal": (*heal, *text),
        "heal self": (*heal, "--text", "self"),
        "study": ("study", "run", given.plan, out, "--model", given.dense, *text),
        "frontier": (
            *("frontier", given.dense, out, *text, *context, "--windows", 2, "--k", ""),
            *("--bits", 3, "--calibrate", given.text),
        ),
    }[command]


def recorded(command, run, out):
    """What the result says that windows began with."""
    if command == "study":
        lines = (out / "runs.jsonl").read_text("utf-8").splitlines()
        return json.loads(lines[-1])["provenance"]["bos"]
    if command == "frontier":
        assert "Each window begins with" in (out / "frontier.html").read_text("utf-8")
        return run.json["points"][-1]["protocol"]["bos"]
    if command == "compress":
        return run.json["calibration"]["bos"]
    return run.json["bos"]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_model_reads_begins_as_its_tokenizer_begins_it(isotone, models, command, tmp_path):
    given, out = models("one"), tmp_path / "out"
    with seen_tokens() as seen:
        run = isotone(*arguments(command, given, out), "--json")
    assert run.code in (0, 1), run.err  # 1: healing did not help
    assert seen
    assert all((tokens[:, 0] == given.bos).all() for tokens in seen)
    assert not any((tokens[:, 1] == given.bos).any() for tokens in seen), "twice"
    assert recorded(command, run, out) == ["<s>"]


@pytest.mark.parametrize("command", ["eval", "calibrate self", "heal", "study"])
def test_two_tokens_are_put_before_a_window_where_the_tokenizer_puts_two(
    isotone, models, command, tmp_path
):
    given, out = models("two"), tmp_path / "out"
    with seen_tokens() as seen:
        run = isotone(*arguments(command, given, out), "--json")
    assert run.code in (0, 1), run.err
    assert all((tokens[:, :2] == given.prefix).all() for tokens in seen)
    assert recorded(command, run, out) == ["<mask>", "<s>"]


@pytest.mark.parametrize(
    ("kind", "choice", "begins"),
    [("one", "no", []), ("none", "auto", []), ("none", "yes", ["<s>"])],
)
@pytest.mark.parametrize("command", ["eval", "calibrate", "heal self", "study"])
def test_the_choice_is_the_users(isotone, models, command, kind, choice, begins, tmp_path):
    given, out = models(kind), tmp_path / "out"
    with seen_tokens() as seen:
        run = isotone(*arguments(command, given, out), "--bos", choice, "--json")
    assert run.code in (0, 1), run.err
    assert all((tokens[:, 0] == given.bos).all() == bool(begins) for tokens in seen)
    assert recorded(command, run, out) == begins


@pytest.mark.parametrize("command", COMMANDS)
def test_what_cannot_be_is_refused_in_a_line(isotone, language_models, models, command, tmp_path):
    """These models name no beginning-of-sequence token at all."""
    nameless = SimpleNamespace(**vars(language_models), plan=models("none").plan)
    for choice, said in (("yes", "names a beginning-of-sequence token"), ("on", "'on'")):
        run = isotone(*arguments(command, nameless, tmp_path / "out"), "--bos", choice)
        assert (run.code, run.err.count("\n")) == (2, 1), run.err
        assert said in run.err
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["eval", "calibrate", "compress", "heal"])
def test_the_tables_say_what_windows_begin_with(isotone, models, command, tmp_path):
    for kind, said in (("one", "<s>"), ("none", "no special token")):
        run = isotone(*arguments(command, models(kind), tmp_path / kind))
        assert f"windows begin with {said}" in " ".join(
            run.out.replace("│", " ").replace("┃", " ").split()
        )


def test_statistics_of_windows_that_begin_otherwise_are_not_used(isotone, models, tmp_path):
    given, statistics = models("one"), tmp_path / "statistics"
    assert isotone(*arguments("calibrate", given, statistics), "--bos", "no").code == 0
    by = ("compress", given.dense, tmp_path / "out", "--k", 4, "--calibrate", statistics)
    run = isotone(*by)
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert "begin with no special token, and they are to begin with <s>" in run.err
    assert isotone(*by, "--bos", "no").code == 0


def test_calibrating_that_began_otherwise_is_not_gone_on_with(isotone, models, tmp_path):
    given, statistics = models("one"), tmp_path / "statistics"
    line = arguments("calibrate", given, statistics)
    assert isotone(*line, "--bos", "no").code == 0
    (statistics / "statistics.json").unlink()  # as if it had been interrupted
    run = isotone(*line)
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert "is no unfinished work of this call" in run.err
    assert isotone(*line, "--bos", "no").code == 0


def test_statistics_that_do_not_say_are_those_of_windows_without(isotone, models, tmp_path):
    given, statistics = models("one"), tmp_path / "statistics"
    assert isotone(*arguments("calibrate", given, statistics), "--bos", "no").code == 0
    path = statistics / "statistics.json"
    body = json.loads(path.read_text("utf-8"))
    del body["about"]["bos"]
    path.write_text(json.dumps(body), "utf-8")
    by = ("compress", given.dense, tmp_path / "out", "--k", 4, "--calibrate", statistics)
    assert "begin with no special token" in isotone(*by).err
    assert isotone(*by, "--bos", "no").code == 0


@pytest.mark.parametrize("kind", BEFORE)
def test_healing_judges_the_tokens_that_evaluating_scores(isotone, models, kind, tmp_path):
    given = models(kind)
    healed = isotone(
        *arguments("heal", given, tmp_path / "out"), "--held-out", given.text, "--json"
    )
    windows = ("--windows", 8, "--context", CONTEXT)
    found = isotone("eval", given.clustered, "--text", given.text, *windows, "--json")
    assert found.json["n_tokens"] == 8 * (CONTEXT - max(1, len(given.prefix)))
    # Both are sums of float32, in another order.
    assert healed.json["perplexity_before"] == pytest.approx(found.json["perplexity"], rel=1e-4)


def test_the_perplexity_is_that_of_the_definition(isotone, models):
    given = models("two")
    run = isotone(*arguments("eval", given, None), "--windows", 1, "--json")
    model = AutoModelForCausalLM.from_pretrained(given.dense, dtype=torch.float32)
    text = given.text.read_text("utf-8")
    tokens = given.tokenizer(text, add_special_tokens=False)["input_ids"][: CONTEXT - 2]
    with torch.no_grad():
        logits = model(torch.tensor([[*given.prefix, *tokens]])).logits[0, 1:-1]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(tokens)).exp()
    assert run.json["reference_perplexity"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("command", "name"), [("study", "runs"), ("frontier", "points")])
def test_results_that_do_not_say_are_those_of_windows_without(
    isotone, models, command, name, tmp_path
):
    given, out = models("one"), tmp_path / "out"
    line = (*arguments(command, given, out), "--json")
    assert isotone(*line, "--bos", "no").code == 0
    path, shared = out / f"{name}.jsonl", "provenance" if command == "study" else "protocol"
    records = [json.loads(each) for each in path.read_text("utf-8").splitlines()]
    for record in records:
        del record[shared]["bos"]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    run = isotone(*line)
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert "bos was none, is <s>" in run.err
    with seen_tokens() as seen:
        assert isotone(*line, "--bos", "no").code == 0
    assert not seen, "what was there is measured again"


def test_a_choice_without_a_text_is_refused(isotone, models, tmp_path):
    given = models("one")
    run = isotone("compress", given.dense, tmp_path / "out", "--bos", "no")
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert "only calibrating runs a text" in run.err
    (tmp_path / "q.jsonl").write_text('{"query": "a", "choices": ["b", "c"], "gold": 0}\n')
    run = isotone("eval", given.dense, "--tasks", tmp_path / "q.jsonl", "--bos", "no")
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert "tasks follow the tokenizer's own rule" in run.err
