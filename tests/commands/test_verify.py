"""`isotone verify` as text: one line for each check that failed, and a verdict."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture
def copy(compressed, tmp_path):
    return shutil.copytree(compressed, tmp_path / "copy")


def test_a_whole_directory(isotone, compressed):
    run = isotone("verify", compressed)
    found = isotone("verify", compressed, "--json").json
    counts = f"{found['n_tensors']} tensors, {found['n_files']} files"
    assert (run.code, run.out, run.err) == (0, f"{compressed} is whole ({counts})\n", "")


def test_a_damaged_directory(isotone, copy):
    path = copy / "LICENSE"
    path.write_bytes(b"Free")
    run = isotone("verify", copy)
    found = isotone("verify", copy, "--json")
    assert (run.code, run.err, found.code) == (1, "", 1)
    *failed, verdict = run.out.splitlines()
    assert failed == [f"failed {failure}" for failure in found.json["failures"]]
    assert any("LICENSE" in line for line in failed)
    assert f"{copy} is damaged: {len(failed)} checks failed" in verdict


def test_another_source_is_a_failure(isotone, compressed, tmp_path, model):
    other = shutil.copytree(model, tmp_path / "other")
    path = min(other.glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    run = isotone("verify", compressed, "--against", other, "--json")
    assert (run.code, run.json["ok"], len(run.json["failures"])) == (1, False, 1)
