"""Healing in several processes: they do what one does, and fail together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.builders.healings import SETTINGS, arguments, healed


def by_processes(n, models, out, *options):
    """`isotone heal` in n processes over gloo, as torchrun starts them."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(n), "-m", "isotone.cli.main"]
    command += [*map(str, arguments(models, out)), "--steps", "8", *options, "--json"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


@pytest.mark.parametrize("batch", [1, 2])
def test_two_processes_do_what_one_does(models, tmp_path, batch):
    """Each takes its windows of a batch, which for one of them may be none."""
    settings = replace(SETTINGS, steps=8, batch=batch)
    alone = healed(models, tmp_path / "alone", settings=settings)
    run = by_processes(2, models, tmp_path / "both", "--batch", str(batch))
    assert run.returncode == 0, run.stderr[-3000:]
    (line,) = run.stdout.splitlines()
    result = json.loads(line)
    assert result["loss_before"] == pytest.approx(alone.loss_before, rel=1e-5)
    assert result["loss_after"] == pytest.approx(alone.loss_after, rel=1e-3)
    assert result["output_bytes"] > 0
    assert sum(line.startswith("step ") for line in run.stderr.splitlines()) == 2


def test_an_error_of_one_process_is_that_of_all(models, done):
    run = by_processes(2, models, done.out)
    assert run.returncode != 0
    assert run.stdout == ""
    lines = [line for line in run.stderr.splitlines() if line.startswith("isotone: ")]
    assert lines
    assert all("exists; choose another OUT" in line for line in lines)
