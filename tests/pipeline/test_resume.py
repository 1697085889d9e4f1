"""A run for a size that is interrupted goes on with the Lagrange multiplier that it found."""

from __future__ import annotations

import functools
from importlib import import_module

import pytest

from isotone.pipeline.compress import compress
from isotone.plan.shards import plan_shards
from tests.builders.checkpoints import Bf16, tree, weights, write_model

compressing = import_module("isotone.pipeline.compress")
planning = import_module("isotone.plan.job")
shards = import_module("isotone.pipeline.write.shards")


class RunInterruptedError(Exception):
    """What stops a run in these tests."""


def interrupted(*_):
    raise RunInterruptedError


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A model of four shards."""
    monkeypatch.setattr(planning, "plan_shards", functools.partial(plan_shards, shard_bytes=20_000))
    tensors = {f"{name}.weight": Bf16(weights(80, 90, seed=i)) for i, name in enumerate("abcd")}
    return write_model(tmp_path / "model", tensors)


@pytest.mark.parametrize("n_done", [0, 2])
def test_a_run_that_ends_after_the_survey_goes_on_without_another(
    n_done, small, tmp_path, monkeypatch
):
    compress(small, tmp_path / "undisturbed", bits=3.0)
    proceed, made = shards.compress_shard, []

    def some(*arguments):
        if len(made) == n_done:
            raise RunInterruptedError
        made.append(arguments[1].name)
        return proceed(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "compress_shard", some)
        with pytest.raises(RunInterruptedError):
            compress(small, tmp_path / "out", bits=3.0)
    monkeypatch.setattr(compressing, "lambda_for", interrupted)
    compress(small, tmp_path / "out", bits=3.0)
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")
    with pytest.raises(RunInterruptedError):  # another job has to survey again
        compress(small, tmp_path / "out", bits=3.1, overwrite=True)


def test_a_run_that_ends_in_the_survey_surveys_again(small, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("isotone.pipeline.allocate.rate_probe._bits_of", interrupted)
        with pytest.raises(RunInterruptedError):
            compress(small, tmp_path / "out", bits=3.0)
    assert not (tmp_path / "out").exists()
    compress(small, tmp_path / "out", bits=3.0)
    compress(small, tmp_path / "other", bits=3.0)
    assert tree(tmp_path / "out") == tree(tmp_path / "other")
    assert not [name for name in tree(tmp_path / "out") if "note" in name]
