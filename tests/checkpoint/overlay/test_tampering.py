"""Codebook-only directories tampered with: seen by verify, refused by readers, never a crash."""

from __future__ import annotations

import numpy as np
import pytest
from blake3 import blake3

from isotone.checkpoint.opening import open_compressed
from isotone.errors import FormatError
from isotone.pipeline.decompress import decompress
from tests.builders import second_reader
from tests.builders.checkpoints import Bf16, safetensors_bytes
from tests.builders.overlays import copy_pair
from tests.builders.tampering import flips, forge, is_refused, set_value, truncations


@pytest.fixture
def copy(pair, tmp_path):
    """To be damaged."""
    return copy_pair(pair, tmp_path)


FILES = ["model.safetensors", "isotone.json", "config.json", "LICENSE", "chat/template.jinja"]


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_byte_is_found(name, copy):
    for position in flips(copy.healed / name):
        assert is_refused(copy.healed), f"byte {position}"
    assert not is_refused(copy.healed)


@pytest.mark.parametrize("name", FILES)
def test_every_truncation_is_found(name, copy):
    for length in truncations(copy.healed / name):
        assert is_refused(copy.healed), f"{length} bytes"


@pytest.mark.parametrize("name", FILES)
def test_damage_to_the_base_is_found_and_the_base_named(name, copy):
    for position in flips(copy.base / name):
        if position % 5 == 0:
            assert is_refused(copy.healed, blamed=copy.base), f"byte {position}"
    for length in truncations(copy.base / name):
        if length % 17 == 0:
            assert is_refused(copy.healed, blamed=copy.base), f"{length} bytes"


def rename(kind, old, new):
    def change(body):
        record = next(r for r in body[kind] if r["name"] == old)
        record["name"] = new

    return change


FORGERIES = {
    "format version 2": lambda body: body.update(format_version=2),
    "no base": lambda body: body.pop("base"),
    "base of text": lambda body: body.update(base="../base"),
    "base with a key more": lambda body: body["base"].update(more=1),
    "digest of a number": lambda body: body["base"].update(digest=3),
    "digest of nonsense": lambda body: body["base"].update(digest="../base"),
    "absolute path": lambda body: body["base"].update(path="/tmp/base"),
    "path of nothing": lambda body: body["base"].update(path=""),
    "path with NUL": lambda body: body["base"].update(path="../ba\0se"),
    "path of a number": lambda body: body["base"].update(path=7),
    "path of null": lambda body: body["base"].update(path=None),
    "nothing changed": lambda body: body.update(changed=[]),
    "changed of null": lambda body: body.update(changed=None),
    "a change left out": lambda body: body["changed"].pop(),
    "a change twice": lambda body: body["changed"].append(body["changed"][0]),
    "a change of nothing known": rename("changed", "norm.weight", "z.weight"),
    "a change without arrays": rename("changed", "norm.weight", "c.weight"),
    "bytes of fewer arrays": set_value("changed", "stored_bytes", 3),
    "bytes of text": set_value("changed", "stored_bytes", "3"),
    "another decoded hash": set_value("changed", "decoded_hash", "0" * 64),
    "a file outside": set_value("files", "name", "../base/model.safetensors"),
    "a file left out": lambda body: body["files"].pop(0),
    "a file's hash": set_value("files", "hash", "0" * 64),
    "a key more": lambda body: body.update(more=1),
    "arguments left out": lambda body: body.pop("arguments"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_manifest_is_found(name, copy):
    forge(copy.healed, FORGERIES[name])
    assert is_refused(copy.healed)


def test_a_path_too_long_for_any_file_is_no_crash(copy):
    forge(copy.healed, lambda body: body["base"].update(path="x" * 5000))
    assert not is_refused(copy.healed)  # the base is found beside it
    copy.base.rename(copy.base.parent / "model.partial")
    with pytest.raises(FormatError, match="needs its base"):
        open_compressed(copy.healed)


ARRAYS = {
    "an array too many": ({"a.weight_packed": np.zeros(8, "u1")}, "which nothing records"),
    "protected values": ({"a.weight_protected_index": np.zeros(1, "u1")}, "which nothing records"),
    "one of nothing": ({"z": np.zeros(8, "<f4")}, "which nothing records"),
    "scales of none": ({"b.experts_row_scale": np.ones((2, 8), "<f4")}, "replaces no array"),
    "another shape": ({"a.weight_codebook": np.zeros(4, "<f4")}, r"is F32 \[4\]; expected F32"),
    "a flat stack": ({"b.experts_codebook": np.zeros(6, "<f4")}, r"is F32 \[6\]; expected F32"),
    "another dtype": ({"a.weight_codebook": np.zeros(3, "<f2")}, r"is F16 \[3\]; expected F32"),
    "scales of ints": ({"a.weight_row_scale": np.ones(40, "<i4")}, "expected U8 or F16 or F32"),
    "a kept dtype": ({"norm.weight": np.zeros(24, "<f2")}, r"is F16 \[24\]; expected BF16"),
    "a kept shape": ({"norm.weight": Bf16(np.zeros((4, 6)))}, r"is BF16 \[4, 6\]; expected BF16"),
}
VALUES = {
    "descending": ("a.weight_codebook", [3, 2, 1], "does not ascend"),
    "equal": ("a.weight_codebook", [1, 1, 2], "does not ascend"),
    "infinite": ("a.weight_codebook", [1, 2, np.inf], "NaN or infinity"),
    "not a number": ("a.weight_codebook", [1, np.nan, 3], "NaN or infinity"),
    "zero scales": ("a.weight_column_scale", [0] * 40, "not positive and finite"),
}


def with_arrays(healed, **arrays):
    """Put other arrays into the file, and have the manifest agree on its size and hash."""
    path = healed / "model.safetensors"
    present = second_reader.read_safetensors(path)
    tensors = {
        n: a if tag != "BF16" else Bf16(np.zeros(a.shape)) for n, (tag, a) in present.items()
    }
    path.write_bytes(safetensors_bytes(tensors | arrays))
    content = path.read_bytes()

    def agree(body):
        body["files"][0] |= {"n_bytes": len(content), "hash": blake3(content).hexdigest()}

    forge(healed, agree)


@pytest.mark.parametrize("name", ARRAYS)
def test_only_arrays_that_take_a_place_are_accepted(name, copy):
    arrays, said = ARRAYS[name]
    with_arrays(copy.healed, **arrays)
    with pytest.raises(FormatError, match=said) as refused:
        open_compressed(copy.healed)
    assert str(copy.healed / "model.safetensors") in str(refused.value)


@pytest.mark.parametrize("name", VALUES)
def test_values_are_checked_where_they_are_read(name, copy, tmp_path):
    array, values, said = VALUES[name]
    with_arrays(copy.healed, **{array: np.array(values, "<f4")})
    with pytest.raises(FormatError, match=said) as refused:
        decompress(copy.healed, tmp_path / "dense")
    assert str(copy.healed / "model.safetensors") in str(refused.value)
    assert is_refused(copy.healed)
