"""Settings for some tensors: rules apply in order, and those that cannot be meant are refused."""

from __future__ import annotations

import json

import pytest

from isotone.errors import InputError
from isotone.pipeline.compress import compress


def records_of(directory, kind="clustered"):
    manifest = json.loads((directory / "isotone.json").read_text())
    return {record["name"]: record for record in manifest[kind]}


def test_settings_apply_in_order_and_later_ones_win(model, tmp_path):
    rules = ["mix.*:k=9,protect=off", "*.up:k=3", "embed.weight:protect=0.01"]
    compress(model, tmp_path / "out", k=5, settings=rules)
    records = records_of(tmp_path / "out")
    assert {name: record["k"] for name, record in records.items()} == {
        "embed.weight": 5,
        "mix.0.up.weight": 3,
        "mix.0.down.weight": 9,
        "mix.1.up.weight": 3,
        "mix.1.experts.gate_up_proj": 9,
        "vision.conv.weight": 5,
        "audio.conv1.weight": 5,
    }
    assert all(record["n_protected"] == 0 for name, record in records.items() if name[0] == "m")
    assert 30 <= records["embed.weight"]["n_protected"] <= 57  # a hundredth of 5,760


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"include": ["model.*"]}, r"include 'model\.\*' matches none of the 8 tensors"),
        ({"include": ["*.bias", "mix.*"]}, r"include '\*\.bias' matches none"),
        ({"include": ["norm"]}, "include 'norm' matches none"),
        ({"exclude": ["lm_head"]}, "exclude 'lm_head' matches none of the 17 tensors"),
        ({"settings": ["lm_head:k=4"]}, "set 'lm_head' matches none of the 7 tensors"),
        ({"settings": ["embed:k=4"], "exclude": ["embed"]}, "set 'embed' matches none of the 6"),
        ({"exclude": ["*"]}, "none of the 17 tensors would be clustered"),
        ({"settings": ["embed"]}, "set is 'embed'; expected GLOB:k=64"),
        ({"settings": [":k=4"]}, "set is ':k=4'; expected GLOB"),
        ({"settings": ["embed:k"]}, "set is 'embed:k'; expected GLOB"),
        ({"settings": ["embed:k=many"]}, "k is 'many'; expected a number from 2 to 256"),
        ({"settings": ["embed:k=1"]}, "k is 1; expected 2 to 256"),
        ({"settings": ["embed:speed=4"]}, "'speed' is not a setting"),
        ({"settings": ["embed:protect=all"]}, "protect is 'all'"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused_before_any_work(options, said, model, tmp_path):
    with pytest.raises(InputError, match=said):
        compress(model, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []
