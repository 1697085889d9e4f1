"""No byte of a compressed directory can change unnoticed, and no change makes a reader crash."""

from __future__ import annotations

import numpy as np
import pytest

from isotone.errors import FormatError, IsotoneError
from isotone.pipeline.compress import compress
from isotone.pipeline.decompress import decompress
from isotone.pipeline.inspect import inspect
from isotone.pipeline.verify import verify
from tests.builders import second_reader
from tests.builders.checkpoints import Bf16, tree, weights, write_model, write_tree
from tests.builders.tampering import flips, forge, forge_array, is_refused, set_value, truncations


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A directory of a few kilobytes with every kind of array: the reference, not to be changed."""
    root = tmp_path_factory.mktemp("small")
    tensors = {
        "a.weight": Bf16(weights(40, 40, seed=1)),
        "b.experts": weights(2, 8, 9, seed=2).astype("<f2"),
        "norm.bias": weights(3),
    }
    model = write_model(root / "model", tensors, config={}, companions={"LICENSE": b"free"})
    compress(model, root / "out", k=3, protect="0.01")
    stored = second_reader.read_safetensors(root / "out" / "model.safetensors")
    assert {"a.weight_protected_index", "b.experts_codebook", "norm.bias"} <= stored.keys()
    return root / "out"


@pytest.fixture
def copy(small, tmp_path):
    write_tree(tmp_path / "copy", tree(small))
    return tmp_path / "copy"


FILES = ["model.safetensors", "isotone.json", "config.json", "LICENSE"]


def test_these_are_all_files_but_the_marker(small):
    assert {*FILES, ".isotone"} == tree(small).keys()
    assert (small / ".isotone").read_bytes() == b""


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_byte_is_found(name, copy):
    for position in flips(copy / name):
        assert is_refused(copy), f"byte {position}"
    assert not is_refused(copy)


@pytest.mark.parametrize("name", FILES)
def test_every_truncation_is_found(name, copy):
    for length in truncations(copy / name):
        assert is_refused(copy), f"{length} bytes"


@pytest.mark.parametrize("name", FILES)
def test_a_prolonged_or_missing_file_is_found(name, copy):
    content = (copy / name).read_bytes()
    for more in (b"\0", b" ", b"\n", content):
        (copy / name).write_bytes(content + more)
        assert is_refused(copy)
    (copy / name).unlink()
    assert is_refused(copy)
    (copy / name).mkdir()
    assert is_refused(copy)


def test_decompress_never_publishes_wrong_weights(small, copy, tmp_path, monkeypatch):
    # What a flip leaves as it was (a space in the header, say) may be published.
    monkeypatch.setattr("os.fsync", lambda _: None)
    name = "model.safetensors"
    decompress(small, tmp_path / "expected")
    expected = (tmp_path / "expected" / name).read_bytes()
    content = (small / name).read_bytes()
    n_refused = 0
    with (copy / name).open("r+b", buffering=0) as file:
        for position in range(0, len(content), 3):
            file.seek(position)
            file.write(bytes([content[position] ^ (1 << position % 8)]))
            out = tmp_path / f"dense{position}"
            try:
                decompress(copy, out, workers=1)
            except IsotoneError:
                n_refused += 1
                assert not out.exists()
            else:
                assert (out / name).read_bytes() == expected, f"byte {position}"
            file.seek(position)
            file.write(content[position : position + 1])
    assert n_refused > len(content) / 6


def test_decompress_refuses_a_changed_manifest(copy, tmp_path):
    content = (copy / "isotone.json").read_bytes()
    (copy / "isotone.json").write_bytes(content.replace(b"e", b"E", 1))
    with pytest.raises(IsotoneError, match=r"isotone\.json"):
        decompress(copy, tmp_path / "dense")
    assert not (tmp_path / "dense").exists()


@pytest.mark.parametrize("name", ["config.json", "LICENSE"])
def test_decompress_takes_an_edited_file_as_it_is_and_says_so(name, copy, tmp_path):
    content = (copy / name).read_bytes().replace(b"e", b"E", 1)
    (copy / name).write_bytes(content)
    assert any(name in failure for failure in verify(copy).failures)
    assert decompress(copy, tmp_path / "dense").edited == (name,)
    if name == "LICENSE":
        assert (tmp_path / "dense" / name).read_bytes() == content


def test_decompress_does_without_a_file_that_was_removed(copy, tmp_path):
    (copy / "LICENSE").unlink()
    assert any("LICENSE" in failure for failure in verify(copy).failures)
    assert decompress(copy, tmp_path / "dense").edited == ("LICENSE",)
    assert not (tmp_path / "dense" / "LICENSE").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "adapter_config.json", "other.safetensors"])
def test_verify_names_weights_that_were_put_beside(name, copy):
    if (copy / name).exists():
        name = "model.safetensors.index.json"
    (copy / name).write_bytes(b"{}")
    assert any(name in failure for failure in verify(copy).failures)


FORGERIES = {
    "format version": lambda body: body.update(format_version=3),
    "format version to come": lambda body: body.update(format_version=4),
    "format version of text": lambda body: body.update(format_version="2"),
    "format version true": lambda body: body.update(format_version=True),
    "no clustered": lambda body: body.pop("clustered"),
    "a key more": lambda body: body.update(more=1),
    "a record's key more": set_value("clustered", "more", 1),
    "decoded hash": set_value("clustered", "decoded_hash", "0" * 64),
    "kept hash": set_value("kept", "source_hash", "0" * 64),
    "file hash": set_value("files", "hash", "0" * 64),
    "file size": set_value("files", "n_bytes", 3),
    "shape": set_value("clustered", "shape", [1600]),
    "dtype": set_value("clustered", "dtype", "F16"),
    "dtype of none": set_value("clustered", "dtype", "Q4_K"),
    "k": set_value("clustered", "k", 4),
    "name": set_value("clustered", "name", "z.weight"),
    "kept shape": set_value("kept", "shape", [1, 3]),
    "kept dtype": set_value("kept", "dtype", "I32"),
    "shard": set_value("clustered", "file", "other.safetensors"),
    "shard outside": set_value("clustered", "file", "../out/model.safetensors"),
    "file outside": set_value("files", "name", "../../etc/passwd"),
    "absolute file": set_value("files", "name", "/etc/passwd"),
    "hidden file": set_value("files", "name", ".job.json"),
    "a tensor left out": lambda body: body["clustered"].pop(0),
    "k of text": set_value("clustered", "k", "4"),
    "k of null": set_value("clustered", "k", None),
    "distortion of text": set_value("clustered", "distortion", "0"),
    "distortion of null": set_value("clustered", "distortion", None),
    "relative distortion of null": set_value("clustered", "relative_distortion", None),
    "a kept tensor changed": set_value("kept", "decoded_hash", "0" * 64),
    "hash of a number": set_value("clustered", "decoded_hash", 7),
    "file of null": set_value("clustered", "file", None),
    "file of nothing": set_value("clustered", "file", ""),
    "name of a list": set_value("kept", "name", []),
    "dtype of a list": set_value("kept", "dtype", []),
    "shape of text": set_value("kept", "shape", "33"),
    "negative shape": set_value("kept", "shape", [-3]),
    "huge shape": set_value("clustered", "shape", [1 << 70, 40]),
    "files of a number": lambda body: body.update(files=[3]),
    "source bytes of text": lambda body: body.update(source_bytes="3"),
    "skipped of null": lambda body: body.update(skipped=None),
    "tied to nothing": set_value("kept", "tied_to", "z.weight"),
    "a file left out": lambda body: body["files"].pop(0),
    "a file twice": lambda body: body["files"].append(body["files"][0]),
    "a tensor twice": lambda body: body["kept"].append(body["kept"][0]),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_manifest_is_found(name, copy, tmp_path):
    forge(copy, FORGERIES[name])
    assert is_refused(copy)
    if "outside" in name or "absolute" in name or "hidden" in name:
        with pytest.raises(IsotoneError, match="is not the name of a file in the directory"):
            decompress(copy, tmp_path / "dense")
        with pytest.raises(IsotoneError):
            inspect(copy)


def test_an_honest_forgery_is_accepted(copy):
    forge(copy, lambda body: body.update(isotone_version="9"))
    assert not is_refused(copy)


def test_files_swapped_between_directories_are_found(small, copy, tmp_path):
    model = write_model(tmp_path / "model", {"a.weight": Bf16(np.ones((40, 40)))}, config={})
    compress(model, tmp_path / "other", k=3)
    for name in ("model.safetensors", "isotone.json"):
        (copy / name).write_bytes((tmp_path / "other" / name).read_bytes())
        assert is_refused(copy)
        (copy / name).write_bytes((small / name).read_bytes())
    assert not is_refused(copy)


@pytest.mark.parametrize(("tag", "n_bytes"), [("I8", 1), ("U16", 2), ("F32", 4), ("F64", 8)])
def test_ranks_of_another_dtype_are_refused(tag, n_bytes, copy, tmp_path):
    def change(array):
        array.update(dtype=tag, shape=[array["shape"][0] // n_bytes])

    forge_array(copy / "model.safetensors", "a.weight_packed", change)
    assert is_refused(copy)
    for read in (inspect, lambda directory: decompress(directory, tmp_path / "dense")):
        with pytest.raises(FormatError, match=rf"a\.weight_packed is of {tag}; expected U8"):
            read(copy)
