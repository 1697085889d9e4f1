"""What the two writers of safetensors files write, as the format's own library reads it."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import safetensors.numpy as library

from isotone.checkpoint.files.safetensors_reader import SafetensorsFile
from isotone.checkpoint.files.safetensors_writer import DenseShard, ShardWriter, storage_order
from isotone.checkpoint.files.tensor_info import DTYPE_BYTES, TensorInfo
from tests.builders.checkpoints import weights


def test_the_library_agrees_with_what_the_writer_writes(tmp_path):
    path = tmp_path / "x.safetensors"
    arrays = {
        "wide": np.arange(5, dtype="<i8"),
        'a "quoted" näme': weights(3, 4),
        "": np.zeros((0, 4), "<f4"),
        "scalar": np.float32(3).reshape(()),
        "bytes": np.arange(7, dtype="u1"),
    }
    tags = ["I64", "F32", "F32", "F32", "U8"]
    with ShardWriter(path, [(name, array.ndim) for name, array in arrays.items()]) as writer:
        for tag, (name, array) in zip(tags, arrays.items(), strict=True):
            assert writer.add(name, tag, array) == array.nbytes
        writer.finish()
    found = library.load_file(path)
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())


def test_the_writer_leaves_no_file_behind_an_exception(tmp_path):
    path = tmp_path / "x.safetensors"
    writer = ShardWriter(path, [("a", 1)])
    writer.add("a", "F32", weights(5))
    writer.__exit__(RuntimeError, RuntimeError(), None)
    assert not path.exists()


def test_arrays_lie_widest_first_and_packed_ranks_behind_those_of_eight_bytes():
    ordered = sorted(DTYPE_BYTES, key=storage_order)
    widths = [DTYPE_BYTES[dtype] for dtype in ordered]
    assert widths == sorted(widths, reverse=True)
    before = [dtype for dtype in ordered if storage_order(dtype) < storage_order("U8", packed=True)]
    assert [DTYPE_BYTES[dtype] for dtype in before] == [8] * len(before)
    assert {dtype for dtype in DTYPE_BYTES if DTYPE_BYTES[dtype] == 8} == set(before)


def test_tensors_that_are_known_may_come_in_any_order_and_in_pieces(tmp_path):
    arrays = {
        "bytes": np.arange(7, dtype="u1"),
        "half": np.arange(5, dtype="<f2"),
        "nothing": np.zeros((0, 4), "<f4"),
        "wide": np.arange(3, dtype="<i8"),
    }
    tags = dict(zip(arrays, ["U8", "F16", "F32", "I64"], strict=True))
    infos = [TensorInfo(name, tags[name], array.shape) for name, array in arrays.items()]
    shard = DenseShard(tmp_path / "x.safetensors", infos)
    for name, array in reversed(arrays.items()):
        data = array.reshape(-1).view(np.uint8)
        for start in reversed(range(0, len(data), 4)):
            shard.write(name, start, data[start : start + 4])
    shard.finish()
    found = library.load_file(tmp_path / "x.safetensors")
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())
    opened = SafetensorsFile.open(tmp_path / "x.safetensors")
    assert all(opened.offsets[t.name] % DTYPE_BYTES[t.dtype] == 0 for t in opened.tensors)


def test_a_shard_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        DenseShard(tmp_path / "x.safetensors", [TensorInfo("a", "U8", (8,))])
    assert not list(tmp_path.iterdir())
