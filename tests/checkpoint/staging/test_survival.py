"""Killed, started twice, out of room: no half result, no lost work, nobody else's files touched."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from isotone.checkpoint.staging.open import open_staging
from isotone.errors import FormatError, InputError
from isotone.pipeline.compress import compress
from isotone.pipeline.decompress import decompress
from isotone.pipeline.verify import verify
from isotone.plan.shards import plan_shards, shard_name
from tests.builders.checkpoints import (
    CONFIG,
    Bf16,
    safetensors_bytes,
    tree,
    weights,
    write_model,
    write_tree,
)
from tests.builders.dying_driver import SHARD_BYTES, killed_after

shards = import_module("isotone.pipeline.write.shards")


def four_matrices(path, n=40, **changed):
    tensors = {f"{name}.weight": Bf16(weights(n, n, seed=i)) for i, name in enumerate("abcd")}
    tensors["norm"] = weights(n)
    tensors |= changed
    return write_model(path, tensors, config=CONFIG, companions={"tokenizer.json": b"{}"})


ROOT = Path(__file__).parents[3]


@pytest.fixture
def source(tmp_path):
    return four_matrices(tmp_path / "model")


@pytest.fixture
def one_shard_each(monkeypatch):
    """Every matrix in a shard of its own; returns the names of shards as they are made."""
    planning = import_module("isotone.plan.job")
    small = functools.partial(plan_shards, shard_bytes=4_000)
    monkeypatch.setattr(planning, "plan_shards", small)
    made = []

    def count(source, shard, *others):
        made.append(shard.name)
        return original(source, shard, *others)

    original = shards.compress_shard
    monkeypatch.setattr(shards, "compress_shard", count)
    return made


@pytest.mark.parametrize(
    ("job", "n_deaths"), [("compress", 50), ("overwrite", 35), ("decompress", 20)]
)
def test_killed_before_each_dealing_with_the_file_system(job, n_deaths, tmp_path, source):
    if job == "decompress":
        compress(source, tmp_path / "small", k=6)
        source = tmp_path / "small"
    (tmp_path / "work").mkdir()
    program = [sys.executable, "-m", "tests.builders.kill_points"]
    script = [*program, job, source, tmp_path / "work" / "out"]
    ended = subprocess.run(script, check=True, capture_output=True, text=True, cwd=ROOT)
    result = json.loads(ended.stdout)
    assert result["wrong"] == []
    assert result["deaths"] >= n_deaths


def test_killed_while_its_workers_write_and_started_again(tmp_path, monkeypatch):
    """Each time when one more shard is finished, and workers are left at the next ones."""
    model, out = four_matrices(tmp_path / "model", 700), tmp_path / "out"
    for n_finished in range(4):
        assert killed_after(min(n_finished, 1), "compress", model, out, "--workers", "2")
        assert not out.exists()
        records = [*out.with_name("out.partial").glob(".model*.json")]
        assert len(records) == n_finished
    planning = import_module("isotone.plan.job")
    small = functools.partial(plan_shards, shard_bytes=SHARD_BYTES)
    monkeypatch.setattr(planning, "plan_shards", small)
    compress(model, out)
    compress(model, tmp_path / "undisturbed")
    assert tree(out) == tree(tmp_path / "undisturbed")


class RunInterruptedError(Exception):
    """What stops a run in these tests."""


def interrupted_after(n, model, out, made, monkeypatch, **options):
    """A run that is stopped when n shards are done."""
    proceed = shards.compress_shard

    def interrupted(*arguments):
        if len(made) == n:
            raise RunInterruptedError
        return proceed(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "compress_shard", interrupted)
        with pytest.raises(RunInterruptedError):
            compress(model, out, **options)
    assert len(made) == n
    assert not out.exists()
    done = sorted(made)
    made.clear()
    return done


def test_finished_shards_are_not_made_again(source, tmp_path, one_shard_each, monkeypatch):
    done = interrupted_after(2, source, tmp_path / "out", one_shard_each, monkeypatch)
    compress(source, tmp_path / "out")
    assert sorted(done + one_shard_each) == [shard_name(i, 4) for i in range(4)]
    compress(source, tmp_path / "other")
    assert tree(tmp_path / "out") == tree(tmp_path / "other")


def test_a_shard_that_nothing_says_is_finished_is_made_again(
    source, tmp_path, one_shard_each, monkeypatch
):
    # As left by a death between the rename of a shard and its record, or before the rename.
    done = interrupted_after(3, source, tmp_path / "out", one_shard_each, monkeypatch)
    (tmp_path / "out.partial" / done[0]).write_bytes(b"half of it")
    (tmp_path / "out.partial" / f".{done[0]}.json").unlink()
    (tmp_path / "out.partial" / done[1]).unlink()
    compress(source, tmp_path / "out")
    assert done[2] not in one_shard_each
    assert len(one_shard_each) == 3
    assert verify(tmp_path / "out", against=source).ok


CHANGES = {
    "k": ({"k": 8}, None, "arguments was"),
    "protect": ({"protect": "off"}, None, "arguments was"),
    "exclude": ({"exclude": ["d*"]}, None, "arguments was"),
    "weights": ({}, {"d.weight": Bf16(weights(40, 40, seed=9))}, "source was"),
    "another tensor": ({}, {"more": weights(3)}, "source was"),
    "config": ({}, None, "source was"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_job_is_not_mixed_in(name, source, tmp_path, one_shard_each, monkeypatch):
    options, tensors, said = CHANGES[name]
    interrupted_after(2, source, tmp_path / "out", one_shard_each, monkeypatch)
    if tensors is not None:
        four_matrices(source, **tensors)
    if name == "config":
        (source / "config.json").write_text(json.dumps({**CONFIG, "tie_word_embeddings": True}))
    before = tree(tmp_path / "out.partial")
    with pytest.raises(InputError, match=f"unfinished work from another source.*{said}"):
        compress(source, tmp_path / "out", **options)
    assert tree(tmp_path / "out.partial") == before
    compress(source, tmp_path / "out", overwrite=True, **options)
    assert len(one_shard_each) == 4
    assert verify(tmp_path / "out", against=source).ok


def test_a_source_that_changes_while_it_is_read_is_refused(source, tmp_path, monkeypatch):
    proceed = shards.compress_shard

    def disturbed(*arguments):
        record = proceed(*arguments)
        os.utime(source / "model.safetensors", (1, 1))
        return record

    monkeypatch.setattr(shards, "compress_shard", disturbed)
    with pytest.raises(InputError, match="changed while they were read"):
        compress(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_at_once_are_refused(source, tmp_path):
    with (
        open_staging(tmp_path / "out", {"another": "job"}, overwrite=False),
        pytest.raises(InputError, match="another isotone is at work"),
    ):
        compress(source, tmp_path / "out", overwrite=True)


def test_what_appears_at_out_meanwhile_is_not_replaced(source, tmp_path, monkeypatch):
    proceed = shards.compress_shard

    def meanwhile(*arguments):
        write_tree(tmp_path / "out", {"mine.txt": b"mine"})
        return proceed(*arguments)

    monkeypatch.setattr(shards, "compress_shard", meanwhile)
    with pytest.raises(InputError, match="exists; choose another OUT"):
        compress(source, tmp_path / "out")
    assert tree(tmp_path / "out") == {"mine.txt": b"mine"}


def test_overwrite_replaces_what_isotone_wrote(source, tmp_path):
    out = tmp_path / "out"
    compress(source, out, k=4)
    with pytest.raises(InputError, match="exists; choose another OUT, or give --overwrite"):
        compress(source, out, k=6)
    first = tree(out)
    compress(source, out, k=6, overwrite=True)
    assert tree(out) != first
    decompress(out, tmp_path / "dense")
    decompress(out, tmp_path / "dense", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dense", "model", "out"]


@pytest.mark.parametrize("place", ["out", "out.partial", "out.old", ".out.replaced"])
def test_files_of_others_are_never_removed(place, source, tmp_path):
    mine = {"mine.txt": b"mine", "model.safetensors": b"mine too", "deep/er.txt": b"mine"}
    write_tree(tmp_path / place, mine)
    if place in ("out", "out.partial"):
        with pytest.raises(InputError, match="was not written by isotone"):
            compress(source, tmp_path / "out", overwrite=True)
    else:
        compress(source, tmp_path / "out", k=4)
        if place == "out.old":
            compress(source, tmp_path / "out", k=6, overwrite=True)
        else:
            with pytest.raises(InputError, match="cannot be written: Directory not empty"):
                compress(source, tmp_path / "out", k=6, overwrite=True)
    assert tree(tmp_path / place) == mine


def test_an_exception_leaves_no_result_and_no_scratch(source, tmp_path, one_shard_each):
    four_matrices(source, **{"c.weight": Bf16(np.full((40, 40), np.nan))})
    with pytest.raises(InputError, match=r"c\.weight: 1600 of its weights are NaN"):
        compress(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not [name for name in tree(tmp_path / "out.partial") if name.endswith(".tmp")]
    compress(source, tmp_path / "out", overwrite=True, exclude=["c"])
    assert len(one_shard_each) == 4 + 4  # the last shard, a little larger, comes first


def test_a_source_that_loses_bytes_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    content = safetensors_bytes({"a": weights(40, 40), "b": weights(40, 40)})
    path.write_bytes(content[:-1])
    with pytest.raises(FormatError, match="truncated or damaged"):
        compress(path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]
