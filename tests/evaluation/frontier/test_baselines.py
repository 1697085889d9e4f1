"""Baselines: points of others, read from files of either form."""

from __future__ import annotations

import json

from isotone.evaluation.frontier.baselines import read_points
from isotone.evaluation.frontier.results import POINTS_FILE
from isotone.evaluation.frontier.variants import ENTROPY, KMEANS, PLAIN
from tests.builders.frontier_sweeps import NF4, written_points


def test_points_come_as_lines_or_as_one_object(tmp_path):
    points = [NF4, {**NF4, "perplexity": float("inf"), "kl": 0.5, "note": "x"}]
    as_lines = written_points(tmp_path / "a.jsonl", *points)
    whole = tmp_path / "b.json"
    whole.write_text(json.dumps({"taken": {}, "points": points}, indent=1))
    expected = [
        {**NF4, "kl": None, "kind": "peer"},
        {**NF4, "perplexity": None, "kl": 0.5, "note": "x", "kind": "peer"},
    ]
    assert read_points(as_lines) == read_points(whole) == expected


def test_a_byte_order_mark_is_not_part_of_the_first_point(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(json.dumps(NF4).encode("utf-8-sig"))
    assert read_points(tmp_path / "a.jsonl") == [{**NF4, "kl": None, "kind": "peer"}]


def test_a_sweep_can_stand_beside_another(finished_sweep):
    found = read_points(finished_sweep / POINTS_FILE)
    assert [(p["kind"], p["family"]) for p in found] == [
        ("peer", family) for family in (ENTROPY, KMEANS, PLAIN)
    ]
