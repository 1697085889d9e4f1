"""What `isotone frontier` refuses, in one line that says what, where and what to do."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from isotone.errors import InputError
from isotone.evaluation.frontier import bench
from isotone.evaluation.frontier.results import POINTS_FILE
from isotone.evaluation.frontier.sweep import frontier
from isotone.evaluation.frontier.variants import frontier_variants
from tests.builders import language_model
from tests.builders.frontier_sweeps import (
    ARGUMENTS,
    N_POINTS,
    NF4,
    PROTOCOL,
    lines,
    swept,
)


@pytest.fixture
def results(finished_sweep, tmp_path):
    """A copy of it."""
    return shutil.copytree(finished_sweep, tmp_path / "results")


# RESULTS of another sweep, or of others


def other_text(_, tmp_path):
    (tmp_path / "text.txt").write_text(language_model.text(seed=1))
    return {"text": tmp_path / "text.txt"}


def other_model(_, tmp_path):
    return {"model": language_model.write_language_model(tmp_path / "dense", seed=1)}


OTHERS = {
    "text": (other_text, "text_hash was"),
    "model": (other_model, "model_hash was"),
    "context": (lambda *_: {"context": 16}, "context was 32, is 16"),
    "exclude": (lambda *_: {"exclude": ["*up*"]}, "exclude was none, is *up*"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_points_of_another_sweep_stay_apart(results, language_models, tmp_path, case):
    change, message = OTHERS[case]
    changes = {"model": language_models.dense, "text": language_models.text, **PROTOCOL}
    changes |= change(language_models, tmp_path)
    before = lines(results)
    with pytest.raises(InputError) as refused:
        frontier(results=results, variants=[], **changes)
    assert message in str(refused.value)
    assert "choose another RESULTS, or give --overwrite" in str(refused.value)
    assert lines(results) == before
    assert len(frontier(results=results, variants=[], overwrite=True, **changes)) == 1
    assert len(lines(results)) == 1


def test_a_copy_of_the_model_is_the_same_model(results, language_models, tmp_path):
    copy = shutil.copytree(language_models.dense, tmp_path / "dense", copy_function=shutil.copy)
    points = frontier(copy, results, language_models.text, variants=[], **PROTOCOL)
    assert len(points) == N_POINTS


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["notes.txt", POINTS_FILE])
@pytest.mark.parametrize("content", [b"mine\n", b'{"x": 1}\n', b'{"x": 1}'])
def test_what_others_wrote_is_left_alone(language_models, tmp_path, name, content, overwrite):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="choose another RESULTS"):
        swept(language_models, tmp_path, overwrite=overwrite)
    assert (tmp_path / name).read_bytes() == content


def test_a_damaged_line_is_named(results, language_models):
    first, second, *rest = lines(results)
    (results / POINTS_FILE).write_bytes(b"".join([first, second[:40], b"\n", *rest]))
    with pytest.raises(
        InputError, match=r"points\.jsonl: line 2 is not a record that isotone frontier wrote"
    ):
        swept(language_models, results)


def test_one_run_at_a_time(results, language_models, monkeypatch):
    def inner(*_, **__):
        with pytest.raises(InputError, match="another isotone is at work there"):
            swept(language_models, results)
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "compress", inner)
    with pytest.raises(KeyboardInterrupt):
        swept(language_models, results, variants=frontier_variants([], [8]))


def test_a_compressed_model_is_refused(language_models, tmp_path):
    with pytest.raises(InputError, match="is compressed already"):
        frontier(language_models.clustered, tmp_path / "r", language_models.text, variants=[])
    assert not (tmp_path / "r").exists()


# Points of others


BAD_POINTS = {
    "no family": ('{"label": "a"}', "line 1: family is None; expected a name"),
    "no label": (json.dumps(NF4) + "\n" + json.dumps(NF4 | {"label": " "}), "line 2: label is ' '"),
    "no bits": (json.dumps(NF4 | {"bits_per_weight": None}), "line 1: bits_per_weight is None"),
    "zero bits": (json.dumps(NF4 | {"bits_per_weight": 0}), "expected a positive number"),
    "text": (json.dumps(NF4 | {"perplexity": "37"}), "line 1: perplexity is '37'"),
    "true": (json.dumps(NF4 | {"perplexity": True}), "line 1: perplexity is True"),
    "none measured": ('{"family": "a", "label": "b", "bits_per_weight": 4}', "is 'missing'"),
    "negative": (json.dumps(NF4 | {"kl": -1}), "line 1: kl is -1; expected a number from 0 up"),
    "no JSON": (json.dumps(NF4) + "\n\nNF4,4.25,37.1\n", "line 3 is not JSON"),
    "broken object": ('{\n"points": [\n{"family": }]}', "line 3 is not JSON"),
    "no list": ('{"points": 3}', "points is 3; expected a list"),
    "in a list": (json.dumps({"points": [NF4, 7]}), "points[1]: is not an object"),
    "latin-1": (b"\xe9", "is not UTF-8 text"),
}


@pytest.mark.parametrize("case", BAD_POINTS)
def test_bad_points_are_named_before_anything_is_measured(isotone, language_models, tmp_path, case):
    content, message = BAD_POINTS[case]
    path = tmp_path / "baselines.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    arguments = language_models.dense, tmp_path / "r", "--text", language_models.text
    run = isotone("frontier", *arguments, *ARGUMENTS, "--points", path, "--json")
    assert (run.code, run.out) == (2, "")
    assert run.err.count("\n") == 1
    assert str(path) in run.err
    assert message in run.err
    assert not (tmp_path / "r").exists()


def test_points_measured_on_something_else_are_refused(results, language_models):
    dense = json.loads(lines(results)[0])["perplexity"]
    alike = {**NF4, "reference_perplexity": dense * 1.001}
    assert len(swept(language_models, results, baselines=[alike])) == N_POINTS
    with pytest.raises(InputError, match="point NF4, block 64: was measured where the dense"):
        swept(language_models, results, baselines=[{**NF4, "reference_perplexity": dense * 1.1}])


# The command line


REFUSED = {
    "bits": (["--bits", "3,x"], "--bits is '3,x'; expected numbers with commas between"),
    "k": (["--k", "2.5"], "--k is '2.5'; expected numbers"),
    "too many": (["--k", "300"], "k is 300"),
    "no text": (["--text", "gone.txt"], "gone.txt: no such file"),
    "long": (["--context", "65"], "context 65: 65 tokens, and"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_line(isotone, language_models, tmp_path, case):
    changes, message = REFUSED[case]
    arguments = language_models.dense, tmp_path / "r", "--text", language_models.text
    run = isotone("frontier", *arguments, *ARGUMENTS, *changes, "--json")
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("isotone: ")
    assert run.err.count("\n") == 1
    assert message in run.err
    assert not (tmp_path / "r").exists()


def test_a_missing_extra_is_named_before_anything_is_measured(
    isotone, language_models, tmp_path, monkeypatch
):
    for name in [name for name in sys.modules if name.startswith("isotone.reporting")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "altair", None)
    arguments = language_models.dense, tmp_path / "r", "--text", language_models.text
    run = isotone("frontier", *arguments, *ARGUMENTS)
    assert run.code == 2
    assert "pip install 'isotone[report]'" in run.err
    assert not (tmp_path / "r").exists()
