"""Ways to be wrong on the command line: each gets one line that says what, where and what to do."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from isotone.pipeline.compress import compress
from tests.builders.checkpoints import (
    Bf16,
    raw_safetensors,
    safetensors_bytes,
    weights,
    write_model,
    write_tree,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a good model, a good compressed directory, and much that is bad."""
    root = tmp_path_factory.mktemp("place")
    good = {"a.weight": Bf16(weights(40, 40)), "norm.weight": weights(40)}
    content = safetensors_bytes(good)
    write_model(root / "good", good, config={"hidden": 40})
    compress(root / "good", root / "small")
    write_tree(
        root,
        {
            "lone.safetensors": content,
            "truncated/model.safetensors": content[:-7],
            "empty/config.json": b"{}",
            "pickles/pytorch_model.bin": b"\x80",
            "lone.bin": b"\x80",
            "lone.h5": b"",
            "notes.txt": b"hello",
            "lies/model.safetensors": raw_safetensors(b'{"a":{"dtype":"F32"}}'),
            "html/model.safetensors": b"<!DOCTYPE html><html>404</html>",
            "pointer/model.safetensors": b"version https://git-lfs.github.com/spec/v1\noid 0",
            "config/model.safetensors": content,
            "config/config.json": b"{'hidden': 40}",
            "listed/model.safetensors": content,
            "listed/config.json": b"[]",
            "quantized/model.safetensors": content,
            "quantized/config.json": b'{"quantization_config": {"quant_method": "gptq"}}',
            "broken.gguf": b"GGUF\x03\x00",
            "nan.safetensors": safetensors_bytes({"h.0.w": weights(9, 99) * np.float32(np.inf)}),
            "vectors.safetensors": safetensors_bytes({"a": weights(40), "b": weights(40)}),
            "double.safetensors": safetensors_bytes({"a": np.ones((40, 40))}),
            "nothing.safetensors": safetensors_bytes({}),
            "unmarked/mine.txt": b"mine",
            "taken/mine.txt": b"mine",
        },
    )
    two = [{"a.weight": weights(40, 40)}, {"b.weight": weights(40, 40, seed=1)}]
    for name in ("missing", "twice", "absent", "outside", "mapless"):
        write_model(root / name, *two)
    index = "model.safetensors.index.json"
    (root / "missing" / "model-00002-of-00002.safetensors").unlink()
    other = root / "twice" / "model-00002-of-00002.safetensors"
    other.write_bytes((root / "twice" / "model-00001-of-00002.safetensors").read_bytes())
    for name, change in {
        "absent": {"c.weight": "model-00001-of-00002.safetensors"},
        "outside": {"c.weight": "../good/model.safetensors"},
        "mapless": None,
    }.items():
        body = json.loads((root / name / index).read_text())
        body["weight_map"] = None if change is None else body["weight_map"] | change
        (root / name / index).write_text(json.dumps(body))
    write_model(root / "indexes", *two)
    for variant in ("fp16", "fp32"):
        (root / "indexes" / f"model.{variant}.safetensors.index.json").write_text("{}")
    (root / "indexes" / "model.safetensors.index.json").unlink()
    for name in ("damaged", "unmanifested", "foreign", "future", "headless"):
        write_tree(root / name, {p.name: p.read_bytes() for p in (root / "small").iterdir()})
    (root / "damaged" / "isotone.json").write_text('{"format_version": 1}')
    (root / "unmanifested" / "isotone.json").unlink()
    (root / "foreign" / "config.json").write_text("{}")
    manifest = (root / "future" / "isotone.json").read_text()
    (root / "future" / "isotone.json").write_text(manifest.replace('version": 2', 'version": 7', 1))
    (root / "headless" / "model.safetensors").unlink()
    return root


WRONG = {
    # command: what the line says. OUT stands for a place that is free.
    "compress": "Missing argument 'MODEL'",
    "compress good": "Missing argument 'OUT'",
    "compress good OUT more": "unexpected extra argument",
    "compress good OUT --quick": "No such option",
    "compress good OUT --k": "requires an argument",
    "compress good OUT --k many": "Invalid value for '--k'",
    "compress good OUT --k 1": "k is 1; expected 2 to 256 centroids",
    "compress good OUT --k 257": "k is 257; expected 2 to 256 centroids",
    "compress good OUT --protect most": "protect is 'most'; expected auto, off, or a fraction",
    "compress good OUT --protect 0.5": "protect is '0.5'; expected auto, off, or a fraction",
    "compress good OUT --protect nan": "protect is 'nan'",
    "compress good OUT --workers 0": "workers is 0; expected 1 to 1024",
    "compress good OUT --workers -2": "workers is -2; expected 1 to 1024",
    "compress good OUT --include mlp*": "include 'mlp*' matches none of the 1 tensors",
    "compress good OUT --exclude mlp*": "exclude 'mlp*' matches none of the 2 tensors",
    "compress good OUT --exclude *": "none of the 2 tensors would be clustered",
    "compress good OUT --set mlp*:k=4": "set 'mlp*' matches none of the 1 tensors",
    "compress good OUT --set a.weight=4": "set is 'a.weight=4'; expected GLOB:k=64",
    "compress good OUT --set a:k=4.5": "k is '4.5'; expected a number from 2 to 256",
    "compress good OUT --set a:k=999": "k is 999; expected 2 to 256",
    "compress good OUT --set a:bits=4": "'bits' is not a setting",
    "compress good OUT --set a:scale=most": "scale is 'most'; expected auto, none, row or both",
    "compress good OUT --scale sideways": "scale is 'sideways'; expected auto, none, row or both",
    "compress good OUT --method foo": "method is 'foo'; expected one of entropy, kmeans",
    "compress good OUT --method kmeans --bits 4": "bits were given, and method kmeans",
    "compress good OUT --bits": "requires an argument",
    "compress good OUT --bits few": "Invalid value for '--bits'",
    "compress good OUT --bits 0.2": "bits is 0.2; expected 1 to 8 bits a weight",
    "compress good OUT --bits 9": "bits is 9.0; expected 1 to 8 bits a weight",
    "compress good OUT --bits nan": "bits is nan; expected 1 to 8 bits a weight",
    "compress good OUT --bits -4": "bits is -4.0; expected 1 to 8 bits a weight",
    "compress good OUT --bits 4 --k 1": "k is 1; expected 2 to 256 centroids",
    "compress good OUT --bits 4 --protect 0.01": "protect is 0.01; expected auto or off where bits",
    "compress good OUT --bits 4 --set a:protect=0.01": "protect is 0.01; expected auto or off",
    "compress good OUT --method entropy --protect 0.01": "protect is 0.01; expected auto or off",
    "compress nan.safetensors OUT --bits 4": "h.0.w: 891 of its weights are NaN or infinite",
    "compress none OUT": "none: no such file or directory; expected a model directory",
    "compress ./a/b OUT": "./a/b: no such file or directory",
    "compress a/b.gguf OUT": "a/b.gguf: no such file or directory",
    "compress a/b/c OUT": "a/b/c: no such file or directory",
    "compress notes.txt OUT": "notes.txt: expected a directory, a .safetensors or a .gguf file",
    "compress lone.bin OUT": "lone.bin: is a pickle, which can run code and is not read; convert",
    "compress lone.h5 OUT": "lone.h5: holds weights as TensorFlow, which isotone does not read",
    "compress pickles OUT": "holds its weights as pickles (pytorch_model.bin)",
    "compress empty OUT": "empty: holds no .safetensors file",
    "compress truncated OUT": "truncated/model.safetensors: is 3",
    "compress lies OUT": "lies/model.safetensors: the header's entry for a is malformed",
    "compress html OUT": "html/model.safetensors: claims a header of",
    "compress pointer OUT": "pointer/model.safetensors: is a Git LFS pointer",
    "compress config OUT": "config/config.json: is not valid JSON",
    "compress listed OUT": "listed/config.json: is not a JSON table",
    "compress quantized OUT": "quantized: is quantized already (gptq)",
    "calibrate quantized OUT --text notes.txt": "quantized: is quantized already (gptq)",
    "compress small OUT": "small: is quantized already (isotone)",
    "compress missing OUT": "2.safetensors: is named by model.safetensors.index.json and is miss",
    "compress twice OUT": "holds a.weight, and so does model-00001-of-00002.safetensors",
    "compress absent OUT": "c.weight",
    "compress outside OUT": "names the shard '../good/model.safetensors', which is not a plain",
    "compress mapless OUT": "has no weight_map",
    "compress indexes OUT": "has more than one index",
    "compress broken.gguf OUT": "broken.gguf: ",
    "compress nan.safetensors OUT": "h.0.w: 891 of its weights are NaN or infinite",
    "compress vectors.safetensors OUT": "none of the 2 tensors would be clustered",
    "compress double.safetensors OUT": "none of the 1 tensors would be clustered",
    "compress nothing.safetensors OUT": "none of the 0 tensors would be clustered",
    "compress good taken": "taken: exists; choose another OUT, or give --overwrite",
    "compress good taken --overwrite": "taken: was not written by isotone, so --overwrite does not",
    "compress good good": "good: is the model itself or lies in it",
    "compress good good/out": "good/out: is the model itself or lies in it",
    "compress good notes.txt/out": "cannot be written: Not a directory",
    "verify": "Missing argument 'DIR'",
    "verify none": "none: has no isotone.json",
    "verify good": "good: has no isotone.json",
    "verify unmanifested": "unmanifested: has no isotone.json",
    "verify small --against none": "none: no such file or directory",
    "verify small --against truncated": "truncated/model.safetensors: is 3",
    "verify small --workers 0": "workers is 0",
    "inspect none": "none: no such directory",
    "inspect good": "good: has no isotone.json",
    "inspect damaged": "damaged/isotone.json: is damaged",
    "inspect future": "future/isotone.json: has format version 7; this isotone reads 1, 2",
    "inspect foreign": "foreign/config.json: has no quantization_config",
    "inspect headless": "headless/model.safetensors: cannot be read: No such file",
    "inspect small --tensor b": "b: no such clustered tensor in",
    "inspect small --top 0": "Invalid value for '--top'",
    "decompress small": "Missing argument 'OUT'",
    "decompress good OUT": "good: has no isotone.json",
    "decompress damaged OUT": "damaged/isotone.json: is damaged",
    "decompress headless OUT": "headless/model.safetensors: cannot be read",
    "decompress small taken": "taken: exists",
    "decompress small small --overwrite": "small: is the model itself or lies in it",
    "decompress small OUT --workers 0": "workers is 0",
    "compact good OUT": "No such command 'compact'",
    "": "Missing command",
}


@pytest.mark.parametrize("command", WRONG)
def test_wrong_commands_get_one_line_and_exit_2(command, place, tmp_path, isotone, monkeypatch):
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    run = isotone(*(tmp_path / "out" if word == "OUT" else word for word in command.split()))
    assert run.code == 2, run
    assert run.out == ""
    assert run.err.count("\n") == 1
    assert run.err.startswith("isotone: ")
    assert WRONG[command] in run.err
    assert "Traceback" not in run.err
    assert not (tmp_path / "out").exists()
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("name", ["damaged", "future", "foreign", "headless"])
@pytest.mark.parametrize("json_flag", [(), ("--json",)])
def test_a_directory_that_verify_finds_fault_with_gives_exit_1(name, json_flag, place, isotone):
    run = isotone("verify", place / name, *json_flag)
    assert (run.code, run.err) == (1, "")
    if json_flag:
        assert run.json["ok"] is False
        assert len(run.json["failures"]) == 1
        assert name in run.json["failures"][0]
    else:
        assert "is damaged: 1 checks failed" in run.out.replace("\n", " ")


def test_a_hub_id_that_cannot_be_had_gets_one_line(isotone, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    run = isotone("compress", "nobody/nothing", tmp_path / "out")
    assert (run.code, run.out, run.err.count("\n")) == (2, "", 1)
    assert "nobody/nothing: no such path here, and the hub says: " in run.err


def test_debug_shows_where(isotone, tmp_path):
    from isotone.errors import InputError

    with pytest.raises(InputError, match="no such file"):
        isotone("compress", "./none", tmp_path / "out", "--debug")


def test_as_people_run_it(place, tmp_path):
    """The same through a process of its own: the streams, the code, and nothing else said."""
    command = [sys.executable, "-m", "isotone.cli.main"]
    wrong = subprocess.run(
        [*command, "compress", place / "none", tmp_path / "out", "--json"],
        capture_output=True,
        text=True,
    )
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert re.fullmatch(r"isotone: \S+none: no such file or directory;[^\n]*\n", wrong.stderr)
    right = subprocess.run(
        [*command, "compress", place / "lone.safetensors", tmp_path / "out", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert right.stderr == ""
    assert right.stdout.count("\n") == 1
    keys = {"bits_per_weight", "n_weights", "n_tensors", "relative_distortion"}
    keys |= {"source_bytes", "output_bytes", "seconds", "peak_rss_bytes"}
    assert keys <= json.loads(right.stdout).keys()
