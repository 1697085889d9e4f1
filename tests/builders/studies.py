"""A plan of every protocol for a tiny model, and studies that run it."""

from __future__ import annotations

import json

import isotone.study

PLAN = """
[clustering]
k = [5, 8]
[evaluation]
context = 24
windows = 3
[[grid]]
name = "layers"
protocol = "layer"
edits = ["sorted_normal", "permute"]
corrections = ["moments", "none"]
[[grid]]
name = "types"
protocol = "type"
k = 8
matrices = ["mlp.*"]
edits = ["reverse", {edit = "quantile_match", layer = 1}]
at_error = 0.3
[[grid]]
name = "more"
protocol = "progressive"
k = 8
edits = ["gaussian_noise"]
orders = ["random"]
seeds = 2
"""
N_RUNS = 2 * 2 * 2 * 2 + 3 * 2 + 2 * 2


def study(plan, results, models, **options):
    """Run a plan, given as TOML, on a dense model; options are those of run_study."""
    given = {"model": models.dense, "text": models.text} | options
    return isotone.study.run_study(
        isotone.study.parse_plan(plan, "plan", "plan.toml"), results, **given
    )


def records(results):
    """By what they are of; all but how long it took."""
    lines = (results / "runs.jsonl").read_text("utf-8").splitlines()
    found = {}
    for line in lines:
        record = json.loads(line)
        assert record.pop("seconds") > 0
        key = json.dumps([record["k"], record["run"]], sort_keys=True)
        assert key not in found, "measured twice"
        found[key] = record
    return found
