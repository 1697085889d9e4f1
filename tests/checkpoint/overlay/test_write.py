"""Writing other values: what does not fit is refused by name, and what is written is whole."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from isotone.checkpoint.opening import open_compressed
from isotone.checkpoint.overlay.tensor_overlay import TensorOverlay
from isotone.checkpoint.overlay.write import write_complete, write_overlay
from isotone.checkpoint.staging.open import open_staging
from isotone.errors import FormatError, InputError
from isotone.pipeline.decompress import decompress
from isotone.pipeline.summary import summarise
from isotone.pipeline.verify import verify
from tests.builders.checkpoints import CLUSTERED, tree, write_tree
from tests.builders.overlays import copy_pair, every_overlay, moved, values_of, write

WRITERS = [write_overlay, write_complete]


@pytest.mark.parametrize("by", WRITERS)
def test_a_tensor_changed_twice_is_refused(by, pair, tmp_path):
    with pytest.raises(InputError, match=r"^a\.weight: is given twice"):
        write(pair.base, tmp_path / "out", [pair.overlays[0], pair.overlays[0]], by=by)


def test_no_change_at_all_is_refused(pair, tmp_path):
    with pytest.raises(InputError, match="no new values were given"):
        write(pair.base, tmp_path / "out", [])


@pytest.mark.parametrize("by", WRITERS)
@pytest.mark.parametrize("layer", ["base", "healed"])
def test_no_layer_is_overwritten_by_what_needs_it(by, layer, pair, tmp_path):
    out = getattr(copy_pair(pair, tmp_path), layer)
    opened = open_compressed(tmp_path / "healed")
    with (
        pytest.raises(InputError, match="is the model itself or lies in it"),
        open_staging(out, {}, overwrite=True) as staging,
    ):
        by(opened, pair.overlays, staging, {})
    assert tree(out) == tree(getattr(pair, layer))


@pytest.mark.parametrize("by", WRITERS)
def test_a_damaged_base_is_refused(by, pair, tmp_path):
    copy = copy_pair(pair, tmp_path)
    path = copy.base / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"base/model\.safetensors: was changed after"):
        write(
            copy.healed, tmp_path / "out", [TensorOverlay("c.weight", np.float32([0, 1, 2]))], by=by
        )
    assert not (tmp_path / "out").exists()


def test_arrays_are_aligned_to_their_dtypes(sharded, tmp_path):
    overlays = []
    for overlay in every_overlay(sharded / "base"):
        column = None
        if overlay.column_scale is not None:
            column = np.arange(overlay.column_scale.size, dtype=np.uint8)  # some of odd length
        overlays.append(dataclasses.replace(overlay, column_scale=column))
    out = write(sharded / "base", tmp_path / "out", overlays)
    content = (out / "model.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    widths = {"F32": 4, "F16": 2, "BF16": 2, "U8": 1}
    start = len(content) - max(entry.get("data_offsets", [0, 0])[1] for entry in header.values())
    found = [
        (start + entry["data_offsets"][0]) % widths[entry["dtype"]]
        for name, entry in header.items()
        if name != "__metadata__"
    ]
    assert set(found) == {0}
    assert any(entry.get("shape", [0])[-1] % 2 for entry in header.values())


# -- complete directories -------------------------------------------------------------------------


def test_a_complete_directory_without_changes_repeats_the_shards(sharded, tmp_path, monkeypatch):
    monkeypatch.setattr("isotone.checkpoint.overlay.overlaid._PIECE_BYTES", 1 << 10)
    out = write(sharded / "base", tmp_path / "out", (), by=write_complete)
    found, base = tree(out), tree(sharded / "base")
    assert found.keys() == base.keys()
    assert {n for n in base if found[n] != base[n]} == {"isotone.json", "config.json"}
    records, before = (json.loads(t["isotone.json"]) for t in (found, base))
    assert records["format_version"] == 3
    assert records["clustered"] == before["clustered"]
    assert records["kept"] == [record | {"decoded_hash": None} for record in before["kept"]]
    assert records["arguments"] == before["arguments"] | {"test": {"n": 1}}


def test_a_complete_directory_is_the_codebook_only_one(sharded, tmp_path, monkeypatch):
    """Whether it is made of the overlays, or of the directory that holds them."""
    monkeypatch.setattr("isotone.checkpoint.overlay.overlaid._PIECE_BYTES", 1 << 10)
    overlays = every_overlay(sharded / "base")
    assert {overlay.name for overlay in overlays} == {
        *CLUSTERED,
        "norm.weight",
        "input_layernorm.weight",
    }
    healed = write(sharded / "base", tmp_path / "healed", overlays)
    one = write(sharded / "base", tmp_path / "one", overlays, by=write_complete)
    other = write(healed, tmp_path / "other", (), by=write_complete)
    assert tree(one) == tree(other)
    for directory in (healed, one):
        for against in (None, sharded / "model"):
            found = verify(directory, against=against)
            assert (found.ok, found.failures) == (True, ())
        decompress(directory, tmp_path / f"{directory.name}-dense")
    assert tree(tmp_path / "healed-dense") == tree(tmp_path / "one-dense")
    assert not list((tmp_path / "one").glob("*.partial"))


def test_what_is_recorded_of_a_complete_directory(pair, tmp_path):
    out = write(pair.healed, tmp_path / "out", (), by=write_complete)
    opened, merged = open_compressed(out), open_compressed(pair.healed)
    assert (opened.base, opened.changed) == (None, frozenset())
    for record, other in zip(opened.manifest.clustered, merged.manifest.clustered, strict=True):
        n_bytes = sum(array.n_bytes for array in opened.arrays(record))
        assert record.stored_bytes == n_bytes
        assert dataclasses.replace(other, stored_bytes=n_bytes) == record
    assert opened.manifest.kept == merged.manifest.kept
    decoded = {record.name: record.decoded_hash for record in opened.manifest.kept}
    assert [name for name, found in decoded.items() if found] == ["norm.weight"]


def test_changes_on_top_of_changes(pair, tmp_path):
    overlay = TensorOverlay("b.experts", moved(values_of(pair.healed, "b.experts"), by=0.2))
    out = write(pair.healed, tmp_path / "out", [overlay], by=write_complete)
    assert values_of(out, "b.experts").codebook.tobytes() == overlay.codebook.tobytes()
    before = values_of(pair.healed, "a.weight").codebook
    assert values_of(out, "a.weight").codebook.tobytes() == before.tobytes()
    assert verify(out, against=pair.model).ok


def test_complete_directories_can_be_bases(pair, tmp_path):
    complete = write(pair.healed, tmp_path / "complete", (), by=write_complete)
    overlay = TensorOverlay("norm.weight", kept=bytes(48))
    out = write(complete, tmp_path / "out", [overlay])
    assert verify(out, against=pair.model).ok
    (record,) = (r for r in open_compressed(out).manifest.kept if r.name == "norm.weight")
    (base,) = (r for r in open_compressed(complete).manifest.kept if "norm" in r.name)
    assert record.source_hash == base.source_hash
    assert len({record.source_hash, record.decoded_hash, base.decoded_hash}) == 3


def test_an_older_format_can_be_a_base(tmp_path):
    from tests.checkpoint.compressed.test_golden import GOLDEN

    write_tree(tmp_path / "v1", tree(GOLDEN / "v1" / "compressed"))
    overlay = TensorOverlay(
        "model.embed.weight", moved(values_of(tmp_path / "v1", "model.embed.weight"))
    )
    for by in WRITERS:
        out = write(tmp_path / "v1", tmp_path / by.__name__, [overlay], by=by)
        assert verify(out).ok
    dense = [tmp_path / f"{by.__name__}-dense" for by in WRITERS]
    for by, out in zip(WRITERS, dense, strict=True):
        decompress(tmp_path / by.__name__, out)
    assert tree(dense[0]) == tree(dense[1])


def test_totals(pair, tmp_path):
    base, healed = summarise(pair.base), summarise(pair.healed)
    complete = summarise(write(pair.healed, tmp_path / "out", (), by=write_complete))
    assert (base.base_bytes, base.n_changed, complete.n_changed) == (0, 0, 0)
    assert healed.n_changed == len(pair.overlays) == 3
    assert healed.base_bytes == base.output_bytes == sum(map(len, tree(pair.base).values()))
    assert healed.output_bytes - healed.base_bytes == sum(map(len, tree(pair.healed).values()))
    assert (healed.relative_distortion, complete.relative_distortion) == (None, None)
    assert base.relative_distortion > 0
    new = 12 + 2 * 40 + 4 * 40 + 24  # a's codebook and scales, the codebooks of b's two matrices
    n_weights = 40 * 40 + 2 * 8 * 9 + 30 * 30
    assert healed.bits_per_weight == pytest.approx(base.bits_per_weight + 8 * new / n_weights)
    wider = 40 + 3 * 40  # the scales of a were codes
    assert complete.bits_per_weight == pytest.approx(base.bits_per_weight + 8 * wider / n_weights)
    same = {"n_weights", "n_tensors", "n_kept", "n_protected", "coverage", "source_bytes"}
    for name in same:
        assert getattr(base, name) == getattr(healed, name) == getattr(complete, name)
