"""What all tests share: the command line run in this process, and hypothesis kept repeatable."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings

from tests.builders.checkpoints import CONFIG, one_of_each, write_model

# Matrices are tiny here: threads would cost more than they bring, above all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples on every run and machine; `--hypothesis-profile=thorough` looks for new ones.
# No example fails for being slow: that would be the machine's fault.
ignored = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
quiet = {"deadline": None, "suppress_health_check": ignored}
settings.register_profile("repeatable", derandomize=True, max_examples=60, database=None, **quiet)
settings.register_profile("thorough", max_examples=2000, **quiet)
settings.load_profile("repeatable")


@dataclass(frozen=True)
class Run:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def isotone(capsys, monkeypatch):
    """Runs `isotone ARGUMENTS...` in this process, through its entry point."""
    from isotone.cli.main import main

    def run(*arguments):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["isotone", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return Run(stopped.value.code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """`one_of_each` in two shards, with companions: a model that no library has heard of."""
    tensors = list(one_of_each().items())
    companions = {"tokenizer.json": b"{}", "LICENSE": b"free", "modeling.py": b"pass"}
    return write_model(
        tmp_path_factory.mktemp("model") / "source",
        dict(tensors[:4]),
        dict(tensors[4:]),
        config=CONFIG,
        companions=companions,
    )


@pytest.fixture(scope="session")
def compressed(model, tmp_path_factory):
    """That model, K = 6. Not to be written to."""
    from isotone.pipeline.compress import compress

    out = tmp_path_factory.mktemp("compressed") / "out"
    compress(model, out, k=6)
    return out


@pytest.fixture(scope="session")
def language_models(tmp_path_factory):
    """A dense language model, its clustered form, what that decompresses to, and a text."""
    import isotone
    from tests.builders import language_model

    at = tmp_path_factory.mktemp("language_models")
    dense = language_model.write_language_model(at / "dense")
    isotone.compress(dense, at / "clustered", k=6)
    isotone.decompress(at / "clustered", at / "restored")
    (at / "text.txt").write_text(language_model.text(), "utf-8")
    return SimpleNamespace(
        dense=dense, clustered=at / "clustered", restored=at / "restored", text=at / "text.txt"
    )


@pytest.fixture(scope="session")
def finished_sweep(language_models, tmp_path_factory):
    """The results of a small `isotone.frontier` of the dense one. Not to be written to."""
    from tests.builders.frontier_sweeps import swept

    results = tmp_path_factory.mktemp("frontier") / "results"
    swept(language_models, results)
    return results
