"""What released versions wrote is read for ever, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from isotone.pipeline.decompress import decompress
from isotone.pipeline.inspect import inspect
from isotone.pipeline.verify import verify
from tests.builders import second_reader
from tests.builders.checkpoints import tree

GOLDEN = Path(__file__).parents[2] / "golden"
DIRECTORIES = {  # and the version of its format
    "v1/compressed": 1,
    "v2/compressed": 2,
    "v3/base": 2,
    "v3/codebooks": 3,
    "v3/complete": 3,
}
EXPECTED = ["v1", "v2", "v3"]

NAMES = ["embed.weight", "0.skewed.weight", "0.half.weight", "0.experts.up"]
SCALES = {
    name: dict(zip([f"model.{n}" for n in NAMES], scales, strict=True))
    for name, scales in {
        "v1/compressed": ("none", "none", "none", "none"),
        "v2/compressed": ("both", "none", "row", "both"),
        "v3/base": ("both", "none", "row", "both"),
        "v3/codebooks": ("both", "none", "row", "both"),
        "v3/complete": ("both", "none", "row", "both"),
    }.items()
}


def test_no_golden_is_missing_and_none_is_forgotten():
    assert sorted(path.name for path in GOLDEN.iterdir()) == EXPECTED
    files = tree(GOLDEN)
    wanted = {f"{version}/expected.safetensors" for version in EXPECTED}
    assert wanted | {f"{name}/isotone.json" for name in DIRECTORIES} <= files.keys()
    for version in EXPECTED:
        assert sum(len(files[name]) for name in files if name.startswith(version)) < 100_000


@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_golden_is_whole(name):
    found = verify(GOLDEN / name)
    assert (found.ok, found.failures) == (True, ())


@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_golden_holds_what_can_be_written(name):
    reports = {r.record.name: r for r in inspect(GOLDEN / name).clustered}
    records = [report.record for report in reports.values()]
    assert {record.dtype for record in records} == {"BF16", "F16", "F32"}
    assert {record.n_matrices for record in records} == {1, 2}
    assert any(report.protected for report in reports.values())
    written = json.loads((GOLDEN / name / "isotone.json").read_text("utf-8"))
    assert written["format_version"] == DIRECTORIES[name]
    manifest, stored = second_reader.read_stored(GOLDEN / name)
    assert [kept["name"] for kept in manifest["kept"] if kept["tied_to"]] == ["lm_head.weight"]
    # A matrix's first chunk: bit 31 of its length says that its ranks have a fixed width.
    assert stored["model.0.experts.up_packed"][1][47] >> 7 == 1
    assert stored["model.0.skewed.weight_packed"][1][39] >> 7 == 0
    scales = {name: record.scale for name, record in zip(reports, records, strict=True)}
    assert scales == SCALES[name]
    for tensor, scale in scales.items():
        for suffix, with_it in (("_row_scale", ("row", "both")), ("_column_scale", ("both",))):
            assert (tensor + suffix in stored) == (scale in with_it)
            _, scales = stored.get(tensor + suffix, ("U8", range(9)))
            assert len(set(np.ravel(scales).tolist())) >= 4


def test_the_codebook_only_golden_holds_every_kind_of_array():
    own = second_reader.read_safetensors(GOLDEN / "v3" / "codebooks" / "model.safetensors")
    assert {name.removeprefix("model."): (tag, a.shape) for name, (tag, a) in own.items()} == {
        "embed.weight_codebook": ("F32", (10,)),
        "embed.weight_row_scale": ("F16", (40,)),
        "0.half.weight_row_scale": ("F32", (30,)),
        "0.experts.up_codebook": ("F32", (2, 7)),
        "0.experts.up_column_scale": ("U8", (2, 30)),
        "norm.weight": ("BF16", (40,)),
    }


@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_golden_decodes_to_what_was_expected(name, tmp_path):
    if name == "v3/base":
        expected = second_reader.read_directory(GOLDEN / name)
    else:
        expected = second_reader.read_safetensors((GOLDEN / name).with_name("expected.safetensors"))
        manifest, _ = second_reader.read_stored(GOLDEN / name)
        expected |= second_reader.copies(manifest, expected)  # the file has what is stored
    decompress(GOLDEN / name, tmp_path / "dense")
    found = second_reader.read_safetensors(tmp_path / "dense" / "model.safetensors")
    again = second_reader.read_directory(GOLDEN / name)
    assert found.keys() == expected.keys() == again.keys()
    for tensor, (tag, array) in expected.items():
        for other_tag, other in (found[tensor], again[tensor]):
            assert (other_tag, other.shape) == (tag, array.shape)
            assert other.tobytes() == array.tobytes()
