"""Directories that hold changed values alone: one with their base, and not to be had without it."""

from __future__ import annotations

import dataclasses
import json
from copy import deepcopy

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from isotone.checkpoint.compressed.decode import decode_checked
from isotone.checkpoint.opening import open_compressed
from isotone.checkpoint.overlay.tensor_overlay import TensorOverlay
from isotone.checkpoint.overlay.write import write_complete
from isotone.core.clustered_tensor import ClusteredTensor
from isotone.errors import FormatError
from isotone.pipeline.decompress import decompress
from isotone.pipeline.verify import verify
from tests.builders import second_reader
from tests.builders.checkpoints import safetensors_bytes, tree, write_tree
from tests.builders.overlays import copy_pair, moved, values_of, write

OWN_ARRAYS = {
    "a.weight_codebook": "F32",
    "a.weight_row_scale": "F16",
    "a.weight_column_scale": "F32",
    "b.experts_codebook": "F32",
    "norm.weight": "BF16",
}


def test_it_holds_the_new_arrays_and_copies_of_small_files(pair):
    files, base = tree(pair.healed), tree(pair.base)
    assert files.keys() == base.keys()
    own = second_reader.read_safetensors(pair.healed / "model.safetensors")
    assert {name: tag for name, (tag, _) in own.items()} == OWN_ARRAYS
    for name in ("LICENSE", "chat/template.jinja", ".isotone"):
        assert files[name] == base[name]
    config, before = json.loads(files["config.json"]), json.loads(base["config.json"])
    before["quantization_config"]["format_version"] = 3
    assert config == before
    manifest = json.loads(files["isotone.json"])
    assert (manifest["format_version"], manifest["arguments"]) == (3, {"test": {"n": 1}})
    digest = json.loads(base["isotone.json"])["digest"]
    assert manifest["base"] == {"digest": digest, "path": "../base"}


def test_tensors_are_those_of_the_base_with_other_codebooks(pair):
    """The merged view is what `with_codebook` and its like give for the base's tensors."""
    opened = open_compressed(pair.healed)
    overlays = {overlay.name: overlay for overlay in pair.overlays}
    for record in opened.manifest.clustered:
        reader = opened.base.packed(record)
        ranks = np.concatenate([reader.decode(chunk) for chunk, *_ in reader.spans()])
        values = opened.base.values(record, reader)
        overlay = overlays.get(record.name)
        if overlay is not None:
            values = values.with_codebook(overlay.codebook)
            for side in ("row_scale", "column_scale"):
                if getattr(overlay, side) is not None:
                    values = dataclasses.replace(values, **{side: getattr(overlay, side)})
        tensor = ClusteredTensor(values, ranks.reshape(record.shape))
        found = np.concatenate([piece.copy() for piece in decode_checked(opened, record)])
        assert found.tobytes() == tensor.dense_bits().tobytes()
        assert record.decoded_hash == blake3(found.data).hexdigest()
        assert (record.distortion is None) == (overlay is not None)


def test_the_second_reader_reads_the_same(pair, tmp_path):
    decompress(pair.healed, tmp_path / "dense")
    found = second_reader.read_safetensors(tmp_path / "dense" / "model.safetensors")
    expected = second_reader.read_directory(pair.healed)
    assert found.keys() == expected.keys()
    for name, (tag, array) in expected.items():
        assert (found[name][0], found[name][1].tobytes()) == (tag, array.tobytes())
    assert expected["norm.weight"][1].tobytes() == pair.overlays[-1].kept
    unchanged = second_reader.read_directory(pair.base)
    assert expected["c.weight"][1].tobytes() == unchanged["c.weight"][1].tobytes()
    assert expected["a.weight"][1].tobytes() != unchanged["a.weight"][1].tobytes()
    for name in ("LICENSE", "chat/template.jinja"):
        assert (tmp_path / "dense" / name).read_bytes() == (pair.base / name).read_bytes()
    assert not (tmp_path / "dense" / "isotone.json").exists()


@given(st.sets(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3))
def test_any_ascending_codebook_comes_back_bit_for_bit(pair, tmp_path_factory, values):
    codebook = np.array(sorted(values), np.float32)
    out = tmp_path_factory.mktemp("any") / "out"
    write(pair.base, out, [TensorOverlay("c.weight", codebook)], workers=1)
    assert values_of(out, "c.weight").codebook.tobytes() == codebook.tobytes()
    assert verify(out, workers=1).ok


def test_its_bytes_depend_on_neither_order_nor_workers(pair, tmp_path):
    (tmp_path / "deeper").mkdir()
    write_tree(tmp_path / "base", tree(pair.base))
    for name, overlays, n in (("one", pair.overlays, 1), ("other", reversed(pair.overlays), 3)):
        write(tmp_path / "base", tmp_path / name, overlays, workers=n)
    assert tree(tmp_path / "one") == tree(tmp_path / "other") == tree(pair.healed)
    write(tmp_path / "base", tmp_path / "deeper" / "third", pair.overlays)
    manifest = json.loads((tmp_path / "deeper" / "third" / "isotone.json").read_text())
    assert manifest["base"]["path"] == "../../base"
    assert verify(tmp_path / "deeper" / "third").ok


# -- verify ---------------------------------------------------------------------------------------


def test_verify_accepts_it_alone_and_against_the_source(pair):
    for against in (None, pair.model):
        found = verify(pair.healed, against=against)
        assert (found.ok, found.failures) == (True, ())
        assert (found.n_tensors, found.n_files) == (5, 4 + 4)


@pytest.mark.parametrize("name", ["a.weight", "c.weight", "norm.weight", "steps"])
def test_verify_tells_another_source(pair, name, tmp_path):
    tensors = dict(pair.tensors)
    tensors[name] = deepcopy(tensors[name])
    patterns = getattr(tensors[name], "patterns", tensors[name])
    patterns.reshape(-1)[0] += 1
    write_tree(tmp_path / "model", tree(pair.model))
    (tmp_path / "model" / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    failures = verify(pair.healed, against=tmp_path / "model").failures
    assert failures == (f"{name}: the source is not the one that was compressed",)


# -- one over the other ---------------------------------------------------------------------------


def test_a_base_may_be_codebook_only_itself(pair, tmp_path):
    copy = copy_pair(pair, tmp_path)
    tensor = values_of(copy.healed, "a.weight")
    overlay = TensorOverlay("a.weight", moved(tensor, by=0.5))
    more = TensorOverlay("c.weight", moved(values_of(copy.healed, "c.weight")))
    write(copy.healed, tmp_path / "again", [overlay, more])
    opened = open_compressed(tmp_path / "again")
    assert [layer.path for layer in opened.layers] == [tmp_path / "again", copy.healed, copy.base]
    found = verify(tmp_path / "again", against=pair.model)
    assert (found.ok, found.failures, found.n_files) == (True, (), 3 * 4)
    again = values_of(tmp_path / "again", "a.weight")
    assert again.codebook.tobytes() == overlay.codebook.tobytes()
    assert again.row_scale.tobytes() == tensor.row_scale.tobytes()
    dense = second_reader.read_directory(tmp_path / "again")
    middle = second_reader.read_directory(copy.healed)
    assert dense["norm.weight"][1].tobytes() == middle["norm.weight"][1].tobytes()
    assert dense["b.experts"][1].tobytes() == middle["b.experts"][1].tobytes()
    records = {record.name: record for record in opened.manifest.clustered}
    before = {record.name: record for record in opened.base.manifest.clustered}
    assert records["a.weight"].stored_bytes == before["a.weight"].stored_bytes + 12
    complete = write(tmp_path / "again", tmp_path / "complete", (), by=write_complete)
    decompress(tmp_path / "again", tmp_path / "one")
    decompress(complete, tmp_path / "other")
    assert tree(tmp_path / "one") == tree(tmp_path / "other")


def test_no_more_than_sixteen_over_one_another(pair, tmp_path):
    below = copy_pair(pair, tmp_path).base
    for n in range(17):
        overlay = TensorOverlay("c.weight", np.float32([0, 1, 2 + n]))
        below = write(below, tmp_path / f"layer{n}", [overlay]) if n < 16 else below
    open_compressed(below)
    write(below, tmp_path / "last", [TensorOverlay("c.weight", np.float32([0, 1, 99]))])
    with pytest.raises(FormatError, match="is the base of 16 others, and has a base itself"):
        open_compressed(tmp_path / "last")
