"""Calibration end to end: a tiny Llama, compressed by what flows through it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import isotone
from isotone.calibration import collect as collecting
from isotone.calibration.statistics import Statistics
from isotone.errors import FormatError, InputError
from isotone.models.language_model.files import open_files
from isotone.models.language_model.load import load_model
from isotone.pipeline.calibrated import fallbacks, rate_search
from isotone.pipeline.calibrated.fitter import NO_HELP
from isotone.pipeline.write import shards
from tests.builders import language_model
from tests.builders.calibrated_models import WIDE


def files(directory):
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.is_file()}


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "isotone.cli.main", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("options", [{"bits": 3.0}, {"k": 16}, {"bits": 3.0, "scale": "row"}])
def test_less_damage_at_equal_bytes_than_without(dense, text, tmp_path, options):
    plain = isotone.compress(dense, tmp_path / "plain", exclude=["*embed*", "lm_head"], **options)
    calibrated = isotone.compress(
        dense,
        tmp_path / "calibrated",
        exclude=["*embed*", "lm_head"],
        calibrate=text,
        **options,
    )
    # k fixes the centroids, not the bytes: uneven columns take a little more there.
    assert calibrated.bits_per_weight == pytest.approx(plain.bits_per_weight, rel=0.06)
    assert isotone.verify(tmp_path / "calibrated", against=dense).ok
    reference = load_model(open_files(dense))
    tokens = open_files(dense).tokenizer(language_model.text(400, seed=9))["input_ids"]
    windows = torch.tensor(tokens[: 8 * 64]).view(8, 64)

    def divergence(directory):
        with torch.no_grad():
            true = reference(windows).logits.log_softmax(-1)
            changed = load_model(open_files(directory))(windows).logits.log_softmax(-1)
        return float((true.exp() * (true - changed)).sum(-1).mean())

    assert divergence(tmp_path / "calibrated") < divergence(tmp_path / "plain")


def test_bytes_depend_on_neither_workers_nor_where_statistics_came_from(
    dense, text, statistics, tmp_path
):
    for name, calibrate, workers in (("a", text, 1), ("b", text, 3), ("c", statistics, 2)):
        isotone.compress(dense, tmp_path / name, bits=3.5, calibrate=calibrate, workers=workers)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    shards = {(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"}
    assert len(shards) == 1


def test_files_have_the_size_that_is_asked_for(tmp_path):
    dense = language_model.write_language_model(
        tmp_path / "dense", hidden_size=256, intermediate_size=512
    )
    (tmp_path / "text.txt").write_text(language_model.text(3000), "utf-8")
    isotone.calibrate(dense, tmp_path / "statistics", text=tmp_path / "text.txt")
    for bits in (2.6, 4.1):
        out = tmp_path / str(bits)
        summary = isotone.compress(
            dense, out, bits=bits, calibrate=tmp_path / "statistics", exclude=["*embed*", "lm_head"]
        )
        assert summary.bits_per_weight == pytest.approx(bits, rel=0.005)


def test_killed_after_the_statistics_it_goes_on_without_the_model(
    dense, text, tmp_path, monkeypatch
):
    isotone.compress(dense, tmp_path / "whole", bits=3.5, calibrate=text)

    def killed(*_args, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shards, "compress_shard", killed)
        with pytest.raises(KeyboardInterrupt):
            isotone.compress(dense, tmp_path / "out", bits=3.5, calibrate=text)
    with monkeypatch.context() as patch:
        patch.setattr(collecting, "PartitionedModel", killed)
        for module in (fallbacks, rate_search):
            patch.setattr(module, "judge_all", killed)
        isotone.compress(dense, tmp_path / "out", bits=3.5, calibrate=text)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_the_command_line_says_what_fell_back(dense, tmp_path):
    result = run(
        "compress", dense, tmp_path / "out", "--bits", "3.5", "--calibrate", "self", "--json"
    )
    assert result.returncode == 0, result.stderr
    calibration = json.loads(result.stdout)["calibration"]
    reasons = calibration["fallbacks"]
    n_fallen = sum(map(len, reasons.values()))
    assert calibration["n_calibrated"] == calibration["n_matrices"] - n_fallen
    for reason, names in reasons.items():
        assert f"not calibrated, {reason}: {names[0]}" in result.stderr
    assert run("verify", tmp_path / "out").returncode == 0
    inspected = json.loads(run("inspect", tmp_path / "out", "--json").stdout)
    assert inspected["calibration"] == calibration


def test_too_few_tokens_are_no_calibration_and_that_is_said(dense, tmp_path):
    (tmp_path / "short.txt").write_text(language_model.text(60), "utf-8")
    with pytest.raises(InputError, match=r"none of the .*tokens, fewer than"):
        isotone.compress(dense, tmp_path / "out", bits=3.5, calibrate=tmp_path / "short.txt")
    assert not (tmp_path / "out").exists()


def test_a_model_that_gives_no_numbers_is_refused(tmp_path, text):
    model = language_model.model(**WIDE)
    with torch.no_grad():
        model.model.layers[1].input_layernorm.weight.fill_(float("nan"))
    model.save_pretrained(tmp_path / "dense")
    language_model.tokenizer().save_pretrained(tmp_path / "dense")
    with pytest.raises(InputError, match=r"none of the .*not finite \(16\)"):
        isotone.compress(tmp_path / "dense", tmp_path / "out", bits=3.5, calibrate=text)


def test_a_matrix_that_statistics_do_not_help_is_clustered_without(
    dense, statistics, tmp_path, monkeypatch
):
    monkeypatch.setattr(Statistics, "held_out", lambda *_: _Contrary())
    summary = isotone.compress(dense, tmp_path / "out", bits=3.5, calibrate=statistics)
    assert summary.calibration["n_calibrated"] == 0
    assert len(summary.calibration["fallbacks"][NO_HELP]) == 16
    assert isotone.verify(tmp_path / "out").ok


class _Contrary:
    """Finds no damage in any clustering, so that calibration helps none."""

    def of_rows(self, _first, _n_rows):
        return self

    def expected_loss(self, _errors):
        return 0.0


def test_bad_requests_are_refused(dense, text, statistics, tmp_path):
    def refusal(model=dense, **options):
        with pytest.raises(InputError) as caught:
            isotone.compress(model, tmp_path / "out", bits=3.5, **options)
        return str(caught.value)

    assert "no such file" in refusal(calibrate=tmp_path / "nothing")
    assert "isotone calibrate" in refusal(calibrate=tmp_path)
    (tmp_path / "empty.txt").write_text("", "utf-8")
    assert "tokens" in refusal(calibrate=tmp_path / "empty.txt")
    (tmp_path / "latin.txt").write_bytes(b"\xe9\xe8 " * 100)
    assert "UTF-8" in refusal(calibrate=tmp_path / "latin.txt")
    other = language_model.write_language_model(tmp_path / "other", seed=1, **WIDE)
    assert "another model" in refusal(other, calibrate=statistics)
    assert "single file" in refusal(dense / "model.safetensors", calibrate="self")
    with pytest.raises(InputError, match="already"):
        isotone.calibrate(dense, statistics, text=text)
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match="choose another"):
        isotone.calibrate(dense, tmp_path / "taken", text=text)


def test_damaged_statistics_are_refused(dense, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "statistics.json").write_text("{}", "utf-8")
    with pytest.raises(FormatError, match=r"statistics\.json"):
        isotone.compress(dense, tmp_path / "out", bits=3.5, calibrate=tmp_path / "s")


@pytest.mark.parametrize("damage", ["cut", "shape", "pickle"])
def test_damaged_arrays_of_statistics_are_refused(dense, statistics, tmp_path, damage):
    copy = shutil.copytree(statistics, tmp_path / "s")
    path = min(copy.glob("inputs-*.npy"))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "shape":
        np.save(path, np.load(path)[:1])
    else:
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    for spread in copy.glob("ordered-*"):
        spread.unlink()
    with pytest.raises(FormatError, match="statistics"):
        isotone.compress(dense, tmp_path / "out", bits=3.5, calibrate=copy)
