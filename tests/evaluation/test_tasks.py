"""Tasks through lm-eval, and local files of questions."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from isotone.errors import InputError
from isotone.evaluation import tasks
from isotone.evaluation.run import evaluate
from tests.builders import language_model

CONTEXT = 32


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Questions of uneven lengths, most with answers of one token."""
    path = tmp_path_factory.mktemp("questions") / "nonsense.jsonl"
    lines = []
    for i in range(12):
        words = language_model.text(40, seed=i).split()
        choices = [" ".join(words[20 + j : 21 + j + i % 3]) for j in range(2 + i % 3)]
        row = {"query": " ".join(words[: 2 + i]), "choices": choices, "gold": i % 2}
        lines.append(json.dumps(row, ensure_ascii=False))
    path.write_text("\n".join(lines) + "\n\n", "utf-8")
    return path


def write_lm_eval_task(directory, questions):
    """The same questions as a task that lm-eval reads by itself."""
    (directory / "nonsense.yaml").write_text(
        json.dumps(
            {
                "task": "nonsense",
                "dataset_path": "json",
                "dataset_kwargs": {
                    "data_files": {"test": str(questions)},
                    "cache_dir": str(directory / "cache"),
                },
                "test_split": "test",
                "output_type": "multiple_choice",
                "doc_to_text": "{{query}}",
                "doc_to_target": "{{gold}}",
                "doc_to_choice": "{{choices}}",
                "metric_list": [{"metric": name} for name in ("acc", "acc_norm", "acc_bytes")],
            }
        )
    )


def test_tasks_agree_with_lm_eval_to_the_last_digit(
    language_models, questions, tmp_path, monkeypatch
):
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    write_lm_eval_task(tmp_path, questions)
    theirs = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(language_models.restored), "dtype": "float32"},
        tasks=["nonsense"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        device="cpu",
        batch_size=8,
    )
    kept = {}
    ours = lm_eval.simple_evaluate

    def keeping(**arguments):
        kept.update(ours(**arguments | {"log_samples": True}))
        return kept

    monkeypatch.setattr(lm_eval, "simple_evaluate", keeping)
    found = evaluate(language_models.clustered, tasks=[questions]).tasks["nonsense"]
    assert found["n"] == 12
    expected = theirs["results"]["nonsense"]
    assert 0.0 < found["acc"] < 1.0
    for name in ("acc", "acc_norm", "acc_bytes"):
        assert found[name] == expected[f"{name},none"]
        assert found[f"{name}_stderr"] == expected[f"{name}_stderr,none"]
    answers = [
        [sample["resps"] for sample in results["samples"]["nonsense"]] for results in (kept, theirs)
    ]
    assert answers[0] == answers[1], "log-likelihoods"


def test_tasks_and_text_come_in_one_record(isotone, language_models, questions):
    pytest.importorskip("lm_eval")
    arguments = language_models.clustered, "--text", language_models.text, "--tasks", questions
    run = isotone("eval", *arguments, "--context", CONTEXT, "--windows", 2, "--json")
    assert run.code == 0, run.err
    assert run.json["n_tokens"] == 2 * (CONTEXT - 1)
    assert {"acc", "acc_stderr", "acc_norm", "n"} <= run.json["tasks"]["nonsense"].keys()
    table = isotone("eval", *arguments, "--context", CONTEXT, "--windows", 2)
    assert "nonsense acc_norm" in table.out


def test_a_task_that_is_not_there(monkeypatch):
    pytest.importorskip("lm_eval")
    import lm_eval.tasks

    known = SimpleNamespace(all_tasks=["hellaswag", "piqa"])  # indexing all takes lm-eval seconds
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", lambda **_: known)
    with pytest.raises(InputError, match=r"hellaswak: no task of lm-eval.*close to it: hellaswag"):
        tasks.prepare_tasks(["piqa", "hellaswak"])


def test_two_files_of_one_name(questions):
    pytest.importorskip("lm_eval")
    with pytest.raises(InputError, match="nonsense: is named by two tasks"):
        tasks.prepare_tasks([questions, str(questions)])


def test_without_lm_eval_the_extra_is_named(isotone, language_models, monkeypatch):
    monkeypatch.setattr(tasks, "find_spec", lambda _: None)
    run = isotone("eval", language_models.dense, "--tasks", "piqa")
    assert run.code == 2
    assert "pip install 'isotone[eval]'" in run.err
