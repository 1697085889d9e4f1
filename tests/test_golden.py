"""What released versions wrote is read for ever, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import second_reader
from checkpoints import tree
from isotone.pipeline.decompress import decompress
from isotone.pipeline.inspect import inspect
from isotone.pipeline.verify import verify

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = ["v1", "v2"]

NAMES = ["embed.weight", "0.skewed.weight", "0.half.weight", "0.experts.up"]
SCALES = {
    "v1": {f"model.{name}": "none" for name in NAMES},
    "v2": {f"model.{n}": s for n, s in zip(NAMES, ("both", "none", "row", "both"), strict=True)},
}


def test_no_golden_is_missing_and_none_is_forgotten():
    assert sorted(path.name for path in GOLDEN.iterdir()) == VERSIONS
    for version in VERSIONS:
        files = tree(GOLDEN / version)
        assert {"expected.safetensors", "compressed/isotone.json"} <= files.keys()
        assert sum(len(content) for content in files.values()) < 100_000


@pytest.mark.parametrize("version", VERSIONS)
def test_a_golden_is_whole(version):
    found = verify(GOLDEN / version / "compressed")
    assert (found.ok, found.failures) == (True, ())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_golden_holds_what_can_be_written(version):
    reports = {r.record.name: r for r in inspect(GOLDEN / version / "compressed").clustered}
    records = [report.record for report in reports.values()]
    assert {record.dtype for record in records} == {"BF16", "F16", "F32"}
    assert {record.n_matrices for record in records} == {1, 2}
    assert any(report.protected for report in reports.values())
    manifest = json.loads((GOLDEN / version / "compressed" / "isotone.json").read_text("utf-8"))
    assert manifest["format_version"] == int(version[1:])
    assert [kept["name"] for kept in manifest["kept"] if kept["tied_to"]] == ["lm_head.weight"]
    stored = second_reader.read_safetensors(
        GOLDEN / version / "compressed" / reports["model.embed.weight"].record.file
    )
    # A matrix's first chunk: bit 31 of its length says that its ranks have a fixed width.
    assert stored["model.0.experts.up_packed"][1][47] >> 7 == 1
    assert stored["model.0.skewed.weight_packed"][1][39] >> 7 == 0
    scales = {name: record.scale for name, record in zip(reports, records, strict=True)}
    assert scales == SCALES[version]
    for name, scale in scales.items():
        for suffix, with_it in (("_row_scale", ("row", "both")), ("_column_scale", ("both",))):
            assert (name + suffix in stored) == (scale in with_it)
            tag, codes = stored.get(name + suffix, ("U8", range(9)))
            assert (tag, len(set(np.ravel(codes).tolist())) >= 4) == ("U8", True)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_golden_decodes_to_what_was_expected(version, tmp_path):
    expected = second_reader.read_safetensors(GOLDEN / version / "expected.safetensors")
    decompress(GOLDEN / version / "compressed", tmp_path / "dense")
    found = second_reader.read_safetensors(tmp_path / "dense" / "model.safetensors")
    again = second_reader.read_directory(GOLDEN / version / "compressed")
    assert found.keys() == expected.keys() == again.keys()
    for name, (tag, array) in expected.items():
        for other_tag, other in (found[name], again[name]):
            assert (other_tag, other.shape) == (tag, array.shape)
            assert other.tobytes() == array.tobytes()
