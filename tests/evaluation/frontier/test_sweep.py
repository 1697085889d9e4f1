"""The sweep over sizes: what is measured, kept and resumed. Charts: test_report.py."""

from __future__ import annotations

import json
import shutil
import struct

import pytest
import torch

import isotone
from isotone.errors import InputError
from isotone.evaluation.frontier import bench
from isotone.evaluation.frontier.results import POINTS_FILE
from isotone.evaluation.frontier.sweep import frontier
from isotone.evaluation.frontier.variants import (
    CALIBRATED,
    ENTROPY,
    KMEANS,
    PLAIN,
    frontier_variants,
)
from isotone.evaluation.run import evaluate
from tests.builders import language_model
from tests.builders.frontier_sweeps import (
    ARGUMENTS,
    N_POINTS,
    NF4,
    PROTOCOL,
    lines,
    swept,
    written_points,
)


@pytest.fixture
def results(finished_sweep, tmp_path):
    """A copy of it."""
    return shutil.copytree(finished_sweep, tmp_path / "results")


@pytest.fixture
def compressed_anew(monkeypatch):
    """The arguments of each compression from here on."""
    calls = []

    def counting(*arguments, include, exclude, workers, progress, **settings):
        calls.append(settings)
        options = {"include": include, "exclude": exclude, "workers": workers}
        return isotone.compress(*arguments, **options, progress=progress, **settings)

    monkeypatch.setattr(bench, "compress", counting)
    return calls


# What is measured


def test_calibrated_sizes_share_statistics(language_models, tmp_path, monkeypatch):
    collected = []

    def counting(*arguments, **options):
        collected.append(options["text"])
        return isotone.calibrate(*arguments, **options)

    monkeypatch.setattr(bench, "calibrate", counting)
    text = str(language_models.text)
    wanted = frontier_variants([3.5, 4.5], [], calibrate=text)
    assert [v.family for v in wanted] == 2 * [CALIBRATED] + 2 * [ENTROPY]
    results = tmp_path / "results"
    points = swept(language_models, results, variants=wanted)
    assert collected == [text]
    assert not list(results.glob(".s*")), "statistics and scratch stay behind"
    sizes = {p.label: p.bits_per_weight for p in points if p.family == CALIBRATED}
    assert len(sizes) == 2
    out = tmp_path / "out"
    summary = isotone.compress(language_models.dense, out, bits=3.5, calibrate=text)
    assert sizes["3.5 bits"] == summary.bits_per_weight
    assert swept(language_models, results, variants=wanted) == points
    assert collected == [text]


def test_points_are_what_compress_and_evaluate_say(finished_sweep, language_models, tmp_path):
    dense, *others = (json.loads(line) for line in lines(finished_sweep))
    assert [p["family"] for p in others] == [ENTROPY, KMEANS, PLAIN]
    assert (dense["kind"], dense["bits_per_weight"]) == ("dense", 32.0)
    assert (dense["kl"], dense["top1_agreement"]) == (0.0, 1.0)
    for number, point in enumerate(others):
        out = tmp_path / str(number)
        summary = isotone.compress(language_models.dense, out, **point["arguments"])
        for name in ("bits_per_weight", "relative_distortion", "output_bytes"):
            assert point[name] == getattr(summary, name), name
        expected = evaluate(out, language_models.text, reference=language_models.dense, **PROTOCOL)
        assert point["n_tokens"] == expected.n_tokens
        for name in ("perplexity", "perplexity_standard_error", "kl", "top1_agreement"):
            assert point[name] == getattr(expected, name), name
        assert dense["perplexity"] == pytest.approx(expected.reference_perplexity, rel=1e-6)


def test_each_line_says_where_it_comes_from(finished_sweep):
    for point in map(json.loads, lines(finished_sweep)):
        assert point["torch"] == torch.__version__
        protocol = point["protocol"]
        assert (protocol["model"], protocol["text"]) == ("dense", "text.txt")
        assert (protocol["context"], protocol["windows"], protocol["dtype"]) == (32, 4, "float32")
        assert len(protocol["model_hash"]) == len(protocol["text_hash"]) == 64
        assert protocol["isotone"]


def test_nothing_but_points_is_left(finished_sweep):
    assert [path.name for path in finished_sweep.iterdir()] == [POINTS_FILE]


def test_bfloat16_is_16_bits(language_models, tmp_path):
    dense = tmp_path / "bf16"
    language_model.model().to(torch.bfloat16).save_pretrained(dense)
    language_model.tokenizer().save_pretrained(dense)
    (point,) = frontier(dense, tmp_path / "r", language_models.text, variants=[], **PROTOCOL)
    assert point.bits_per_weight == 16.0


def test_a_collapsed_variant_is_kept_without_figures(language_models, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise InputError("the model gives nan for 4 of 4 tokens")

    monkeypatch.setattr(bench, "compare", broken)
    swept(language_models, tmp_path / "r", variants=frontier_variants([], [6])[:1])
    point = json.loads(lines(tmp_path / "r")[1])
    assert (point["perplexity"], point["kl"], point["top1_agreement"]) == (None, None, None)
    assert point["bits_per_weight"] > 1


# Going on


def test_points_that_are_there_are_not_measured_again(results, language_models, compressed_anew):
    before = lines(results)
    points = swept(language_models, results, variants=frontier_variants([3.5], [6, 8])[:3])
    assert compressed_anew == [{"k": 8}]
    assert lines(results)[:N_POINTS] == before
    assert len(points) == len(lines(results)) == N_POINTS + 1


@pytest.mark.parametrize("kept", [1, 12, 0.5, -1], ids=["a byte", "a key", "half", "all but \\n"])
def test_a_torn_last_line_is_measured_again(results, language_models, compressed_anew, kept):
    *whole, last = lines(results)
    n_bytes = int(kept * len(last)) if isinstance(kept, float) else kept
    (results / POINTS_FILE).write_bytes(b"".join(whole) + last[:n_bytes])
    swept(language_models, results)
    assert len(compressed_anew) == 1
    assert lines(results)[:-1] == whole
    again, before = json.loads(lines(results)[-1]), json.loads(last)
    assert again.pop("seconds") > 0
    assert before.pop("seconds") > 0
    assert again == before


def test_what_a_stopped_run_left_is_made_anew(language_models, tmp_path, monkeypatch):
    def stopped(model, out, **_):
        isotone.compress(model, out, k=3)  # of other arguments than any variant's
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "compress", stopped)
    with pytest.raises(KeyboardInterrupt):
        swept(language_models, tmp_path / "r")
    monkeypatch.undo()
    assert len(lines(tmp_path / "r")) == 1
    assert len(swept(language_models, tmp_path / "r")) == N_POINTS
    assert [path.name for path in (tmp_path / "r").iterdir()] == [POINTS_FILE]


# The command line


def test_frontier_prints_one_object_and_draws(isotone, results, language_models, tmp_path):
    baselines = written_points(
        tmp_path / "baselines.jsonl", NF4, {**NF4, "perplexity": float("nan")}
    )
    arguments = (
        language_models.dense,
        results,
        "--text",
        language_models.text,
        "--points",
        baselines,
    )
    run = isotone("frontier", *arguments, *ARGUMENTS, "--json")
    assert run.code == 0, run.err
    assert run.out.count("\n") == 1
    assert run.json.keys() == {"points", "html", "png"}
    assert run.json["points"][:N_POINTS] == [json.loads(line) for line in lines(results)]
    assert [p["perplexity"] for p in run.json["points"][N_POINTS:]] == [37.1, None]
    page, picture = results / "frontier.html", results / "frontier.png"
    assert (run.json["html"], run.json["png"]) == (str(page), str(picture))
    assert "text.txt, 4 windows of 32 tokens, float32." in page.read_text("utf-8")
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    assert 2000 < width < 3000
    assert 1000 < height < 2000

    table = isotone("frontier", *arguments, *ARGUMENTS)
    assert table.code == 0, table.err
    assert f"{run.json['points'][1]['kl']:.4f}" in table.out
    assert table.out.endswith(f"{page}\n{picture}\n")
