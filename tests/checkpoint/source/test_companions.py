"""The files beside the weights: copied bit for bit, or left out by name."""

from __future__ import annotations

import json
import tracemalloc

import pytest

import isotone
from isotone.checkpoint.source.companions import find_other_files, weight_format
from tests.builders.checkpoints import safetensors_bytes, tree, weights, write_model


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model", {"layer.weight": weights(64, 40)}, config={"a": 1})


def add(model, files):
    for name, content in files.items():
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_bytes(content)


DENSE = safetensors_bytes({"linear.weight": weights(40, 40)})
GO_ALONG = {
    "tokenizer.json": b"{}",
    "LICENSE": b"free",
    "vocab.txt": b"a",
    "notes/readme.md": b"hello",
    "adapter_config.json": b"{}",
    "adapter_model.safetensors": DENSE,
    "1_Pooling/config.json": b"{}",
    "2_Dense/model.safetensors": DENSE,
    "2_Dense/config.json": b"{}",
    "3_Dense/model.onnx": b"listed",
    "exported/config.json": b"{}",
    "original/config.json": b"{}",
    "3_Dense/pytorch_model.bin": b"pickle",
    "router/query/model.safetensors": DENSE,
    "other/adapter_config.json": b"{}",
    "other/adapter_model.safetensors": DENSE,
    "modules.json": json.dumps(
        [{"path": ""}, {"path": "1_Pooling"}, {"path": "3_Dense"}, {"path": "router"}]
    ).encode(),
}
LEFT_OUT = {
    "pytorch_model.bin": "PyTorch",
    "pytorch_model.bin.index.json": "PyTorch",
    "tf_model.h5": "TensorFlow",
    "onnx/model.onnx": "ONNX",
    "onnx/model.onnx_data": "ONNX",
    "exported/model.onnx": "ONNX",
    "exported/tf_model.h5": "TensorFlow",
    "original/model.safetensors": "no module",
    "onnx/model.onnx_data_1": "ONNX",
    "onnx/model.onnx.data": "ONNX",
    "openvino/openvino_model.xml": "OpenVINO",
    "openvino/openvino_model.bin": "OpenVINO",
    "weights.npz": "NumPy",
    "model.safetensors.bak": "copy",
    "old/model.safetensors": "no module",
    "original/consolidated.00.pth": "PyTorch",
    "model-q4.gguf": "GGUF",
    "isotone.json": "isotone",
    "Model.mlpackage/": "Core ML",
    "checkpoint-500/": "training",
}


def test_every_file_goes_along_or_is_named(model, tmp_path):
    add(model, GO_ALONG)
    add(model, {name: b"x" for name in LEFT_OUT if not name.endswith("/")})
    add(model, {"Model.mlpackage/Data/weights.bin": b"x", "checkpoint-500/config.json": b"{}"})
    add(model, {"checkpoint-500/model.safetensors": DENSE, ".cache/model.bin": b"x"})
    summary = isotone.compress(model, tmp_path / "out", k=4)
    assert summary.left_out.keys() == LEFT_OUT.keys()
    for name, kind in LEFT_OUT.items():
        assert kind in summary.left_out[name], name
    written = tree(tmp_path / "out")
    own = {"model.safetensors", "config.json", "isotone.json", ".isotone"}
    assert written.keys() - own == GO_ALONG.keys()
    for name, content in GO_ALONG.items():
        assert written[name] == content
    (model / "isotone.json").unlink()
    assert isotone.verify(tmp_path / "out", against=model).ok
    isotone.decompress(tmp_path / "out", tmp_path / "dense")
    back = tree(tmp_path / "dense")
    for name, content in GO_ALONG.items():
        assert back[name] == content


@pytest.mark.parametrize("damage", ["change", "remove"])
def test_verify_sees_what_became_of_a_module(model, tmp_path, damage):
    add(model, GO_ALONG)
    isotone.compress(model, tmp_path / "out", k=4)
    path = tmp_path / "out" / "2_Dense" / "model.safetensors"
    if damage == "change":
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    else:
        path.unlink()
    assert any("2_Dense" in failure for failure in isotone.verify(tmp_path / "out").failures)


def test_a_module_of_the_source_that_came_later_is_missed(model, tmp_path):
    isotone.compress(model, tmp_path / "out", k=4)
    add(model, {"2_Dense/model.safetensors": DENSE, "2_Dense/config.json": b"{}"})
    failures = isotone.verify(tmp_path / "out", against=model).failures
    assert any("2_Dense/model.safetensors" in failure for failure in failures)


def test_large_files_are_copied_in_pieces(model, tmp_path):
    with (model / "large.dat").open("wb") as file:
        file.truncate(200 << 20)
    tracemalloc.start()
    isotone.compress(model, tmp_path / "out", k=4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    isotone.verify(tmp_path / "out", against=model)
    isotone.decompress(tmp_path / "out", tmp_path / "dense")
    _, later = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "dense" / "large.dat").stat().st_size == 200 << 20
    assert max(peak, later) < 100 << 20


def test_links_and_what_is_hidden(model, tmp_path):
    add(model, {".git/config": b"x", "real.txt": b"text"})
    (model / "link.txt").symlink_to("real.txt")
    (model / "broken.txt").symlink_to("nowhere")
    names = {each.name for each in find_other_files(model, {"model.safetensors": 0}).companions}
    assert names == {"real.txt", "link.txt"}
    isotone.compress(model, tmp_path / "out", k=4)
    assert (tmp_path / "out" / "link.txt").read_bytes() == b"text"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tokenizer.json", None),
        ("spiece.model", None),
        ("model.safetensors.index.json", "safetensors"),
        ("MODEL.SAFETENSORS.OLD", "safetensors"),
        ("model.safetensors~", "safetensors"),
        ("rust_model.ot", "Rust"),
        ("config.json.bak", None),
    ],
)
def test_formats_are_known_by_name(name, expected):
    assert weight_format(name) == expected
