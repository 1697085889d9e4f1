"""A healing that was killed or interrupted continues to the same result."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from isotone.errors import FormatError
from isotone.healing import training
from tests.builders.checkpoints import tree
from tests.builders.healings import arguments, healed

DYING = """
import os, signal, sys
from isotone.cli import main
from isotone.healing import training

dump, saved = training.Training.dump, []

def dying(self):
    if saved:  # the first state has been written
        os.kill(os.getpid(), signal.SIGKILL)
    saved.append(1)
    return dump(self)

training.Training.dump = dying
main.main()
"""


def test_killed_it_goes_on_as_if_nothing_had_happened(models, done, tmp_path):
    """SIGKILL once the first state has been written, in a process of its own."""
    out = tmp_path / "out"
    given = [*map(str, arguments(models, out))]
    died = subprocess.run([sys.executable, "-c", DYING, *given], capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL
    assert (tmp_path / "out.partial" / ".training.pt").exists()
    command = [sys.executable, "-m", "isotone.cli.main", *given]
    assert not out.exists()
    run = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    steps = [each["step"] for each in json.loads(run.stdout)["looks"]]
    assert steps == [0, 8, 16, 24]
    assert "step    0" not in run.stderr
    assert (out / "model.safetensors").read_bytes() == (done.out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("n_saved", [1, 2])
def test_interrupted_after_a_validation_the_result_is_the_same(models, done, monkeypatch, n_saved):
    out, dump, saved = done.out.with_name(f"interrupted{n_saved}"), training.Training.dump, []

    def interrupted(self):
        if len(saved) == n_saved:
            raise KeyboardInterrupt
        saved.append(1)
        return dump(self)

    monkeypatch.setattr(training.Training, "dump", interrupted)
    with pytest.raises(KeyboardInterrupt):
        healed(models, out)
    monkeypatch.setattr(training.Training, "dump", dump)
    result = healed(models, out)
    assert result.crossings == done.result.crossings
    assert tree(out) == tree(done.out)


@pytest.mark.parametrize("name", [".training.pt", ".self-text.npy"])
def test_what_is_damaged_of_an_interrupted_run_is_named(models, tmp_path, monkeypatch, name):
    def interrupted(self, save, *_):
        save(self.dump())
        raise KeyboardInterrupt

    run = training.Training.run
    monkeypatch.setattr(training.Training, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        healed(models, tmp_path / "out", text="self")
    monkeypatch.setattr(training.Training, "run", run)
    path = tmp_path / "out.partial" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError, match=name + r".*damaged.*remove .*and run again"):
        healed(models, tmp_path / "out", text="self")
