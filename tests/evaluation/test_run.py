"""What a model is worth by `isotone.evaluate` and `isotone eval`: the protocol, and the record."""

from __future__ import annotations

import pytest

from isotone.evaluation.run import evaluate
from isotone.models.text import encode
from tests.builders import language_model

CONTEXT = 32


@pytest.mark.parametrize("context", [2, 17, language_model.MAX_POSITIONS])
def test_all_tokens_but_each_first_are_scored(language_models, context):
    found = evaluate(language_models.dense, language_models.text, context=context, windows=3)
    assert (found.n_windows, found.n_tokens) == (3, 3 * (context - 1))


def test_a_text_that_ends_before_is_said_to(language_models, tmp_path):
    (tmp_path / "short.txt").write_text(language_model.text()[:400])
    tokens = encode(language_model.tokenizer(), language_model.text()[:400])
    found = evaluate(language_models.dense, tmp_path / "short.txt", context=32, windows=100)
    assert found.n_windows_asked == 100
    assert found.n_windows == len(tokens) // 32 < 100


def test_a_clustered_directory_is_worth_what_it_decompresses_to(language_models):
    options = {"context": CONTEXT, "windows": 2, "reference": language_models.dense}
    clustered = evaluate(language_models.clustered, language_models.text, **options)
    restored = evaluate(language_models.restored, language_models.text, **options)
    assert clustered.perplexity == restored.perplexity != clustered.reference_perplexity
    assert clustered.kl == restored.kl > 0.001


# The command line


def run_eval(isotone, *arguments):
    return isotone("eval", *arguments, "--context", CONTEXT, "--windows", 2)


def test_eval_prints_what_evaluate_returns(isotone, language_models):
    arguments = language_models.clustered, "--text", language_models.text
    run = run_eval(isotone, *arguments, "--reference", language_models.dense, "--json")
    assert run.code == 0, run.err
    assert run.out.count("\n") == 1
    found = evaluate(
        language_models.clustered,
        language_models.text,
        context=CONTEXT,
        windows=2,
        reference=language_models.dense,
    )
    for name in ("perplexity", "perplexity_standard_error", "n_tokens", "kl", "top1_agreement"):
        assert run.json[name] == getattr(found, name), name
    assert run.json["tasks"] == {}
    table = run_eval(isotone, *arguments, "--reference", language_models.dense)
    assert table.code == 0, table.err
    assert f"{found.perplexity:,.3f} ± {found.perplexity_standard_error:,.3f}" in table.out
    assert f"{found.top1_agreement:.2%}" in table.out


def test_a_single_token_gives_json_without_nan(isotone, language_models):
    arguments = (
        language_models.dense,
        "--text",
        language_models.text,
        "--context",
        2,
        "--windows",
        1,
    )
    run = isotone("eval", *arguments, "--json")
    assert run.code == 0, run.err
    assert run.json["n_tokens"] == 1
    assert run.json["perplexity"] > 1
    assert run.json["perplexity_standard_error"] is None
