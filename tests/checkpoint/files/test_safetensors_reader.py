"""The reader agrees with the safetensors library, and lies in a header are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import numpy as library

from isotone.checkpoint.files.safetensors_reader import SafetensorsFile
from isotone.checkpoint.files.tensor_info import DTYPE_BYTES
from isotone.errors import FormatError
from tests.builders.checkpoints import raw_safetensors, safetensors_bytes, weights

NUMPY_DTYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "u2",
    "I16": "i2",
    "F16": "f2",
    "U32": "u4",
    "I32": "i4",
    "F32": "f4",
    "U64": "u8",
    "I64": "i8",
    "F64": "f8",
    "C64": "c8",
}
SHAPES = [(), (1,), (0,), (3, 0, 2), (7,), (2, 3), (2, 1, 3, 2)]


def test_agrees_with_the_library_on_what_it_writes(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {
        f"{tag}.{shape}": np.asarray(generator.standard_normal(shape) * 9).astype(dtype)
        for tag, dtype in NUMPY_DTYPES.items()
        for shape in SHAPES
    }
    library.save_file(arrays, tmp_path / "all.safetensors", {"format": "np"})
    file = SafetensorsFile.open(tmp_path / "all.safetensors")
    assert {t.name for t in file.tensors} == arrays.keys()
    assert file.metadata == {"format": "np"}
    for tensor in file.tensors:
        array = arrays[tensor.name]
        assert (tensor.shape, tensor.n_bytes) == (array.shape, array.nbytes)
        assert np.dtype(NUMPY_DTYPES[tensor.dtype]) == array.dtype
        assert file.read(tensor, 0, tensor.n_weights).tobytes() == array.tobytes()
        half = tensor.n_weights // 2
        rest = file.read(tensor, half, tensor.n_weights).tobytes()
        assert rest == array.reshape(-1)[half:].tobytes()


def test_dtypes_are_as_wide_as_they_say():
    for tag, dtype in NUMPY_DTYPES.items():
        assert DTYPE_BYTES[tag] == np.dtype(dtype).itemsize


def refused(tmp_path, content, message=None):
    path = tmp_path / "lie.safetensors"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as refusal:
        SafetensorsFile.open(path)
    assert str(path) in str(refusal.value)


def test_every_truncation_is_refused(tmp_path):
    content = safetensors_bytes({"a": weights(3, 5), "b": np.arange(4)}, {"format": "pt"})
    for length in range(len(content)):
        refused(tmp_path, content[:length])
    refused(tmp_path, content + b"\0", "header promises")


def header(*entries, **tables):
    """A header text of (name, entry) pairs, names given twice and all."""
    pairs = [*entries, *tables.items()]
    return ("{" + ",".join(f"{json.dumps(n)}:{json.dumps(e)}" for n, e in pairs) + "}").encode()


def entry(dtype="U8", shape=(4,), offsets=(0, 4), **more):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


FOUR = b"1234"
HUGE = 1 << 63
LIES = {
    "not JSON": (b"{hello", b"", "not valid JSON"),
    "not UTF-8": (b'{"\xff": 1}', b"", "not valid JSON"),
    "NUL bytes": (bytes(64), b"", "not valid JSON"),
    "a list": (b"[]", b"", "not a table"),
    "a number": (b"7", b"", "not a table"),
    "deep nesting": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"", "not valid JSON"),
    "deep lists": (b'{"a":' + b"[" * 100_000, b"", "not valid JSON"),
    "long numbers": (b'{"a":' + b"9" * 5000 + b"}", b"", "not valid JSON"),
    "half a character": (header(("\ud800", entry())), FOUR, "not valid JSON"),
    "a name twice": (header(("a", entry()), ("a", entry(offsets=[4, 8]))), 2 * FOUR, "twice"),
    "a key twice": (b'{"a":{"dtype":"U8","dtype":"U8"}}', b"", "twice"),
    "metadata of a number": (header(__metadata__=3), b"", "metadata is not a table"),
    "an entry of a number": (header(a=3), b"", "malformed"),
    "an entry without dtype": (header(a={"shape": [4], "data_offsets": [0, 4]}), FOUR, "malformed"),
    "an entry with more": (header(a=entry(more=1)), FOUR, "malformed"),
    "an unknown dtype": (header(a=entry("Q4_K")), FOUR, "dtype 'Q4_K'"),
    "a dtype of a list": (header(a=entry(["U8"])), FOUR, "dtype"),
    "a dtype of null": (header(a=entry(None)), FOUR, "dtype None"),
    "a shape of text": (header(a=entry(shape="4")), FOUR, "malformed"),
    "a negative axis": (header(a=entry(shape=[-4])), FOUR, "malformed"),
    "two negative axes": (header(a=entry(shape=[-2, -2])), FOUR, "malformed"),
    "a float axis": (header(a=entry(shape=[4.0])), FOUR, "malformed"),
    "a bool axis": (header(a=entry(shape=[4, True])), FOUR, "malformed"),
    "a null axis": (header(a=entry(shape=[None])), FOUR, "malformed"),
    "a shape that overflows": (header(a=entry(shape=[1 << 32, 1 << 32])), FOUR, "claims a shape"),
    "a huge axis beside 0": (header(a=entry(shape=[1 << 70, 0], offsets=[0, 0])), b"", "claims"),
    "a shape of 4 EiB": (header(a=entry(shape=[1 << 60])), FOUR, "takes bytes"),
    "one offset": (header(a=entry(offsets=[4])), FOUR, "malformed"),
    "three offsets": (header(a=entry(offsets=[0, 4, 4])), FOUR, "malformed"),
    "a negative offset": (header(a=entry(offsets=[-4, 0])), FOUR, "malformed"),
    "a float offset": (header(a=entry(offsets=[0, 4.0])), FOUR, "malformed"),
    "offsets backwards": (header(a=entry(offsets=[4, 0])), FOUR, "takes bytes 4 to 0"),
    "offsets beyond": (header(a=entry(shape=[8], offsets=[0, 8])), FOUR, "header promises"),
    "huge offsets": (header(a=entry(offsets=[HUGE, HUGE + 4])), FOUR, "takes bytes"),
    "more bytes than the shape": (header(a=entry(shape=[3])), FOUR, "expected 3 bytes"),
    "fewer bytes than the shape": (header(a=entry(shape=[5])), FOUR, "expected 5 bytes"),
    "a hole in front": (header(a=entry(offsets=[4, 8])), 2 * FOUR, "takes bytes 4 to 8"),
    "a hole": (header(a=entry(), b=entry(offsets=[5, 9])), 9 * b"x", "takes bytes 5 to 9"),
    "a hole at the end": (header(a=entry()), 2 * FOUR, "header promises"),
    "an overlap": (header(a=entry(), b=entry(offsets=[3, 7])), 7 * b"x", "takes bytes 3 to 7"),
    "the same bytes twice": (header(a=entry(), b=entry()), FOUR, "takes bytes 0 to 4"),
    "a tensor within another": (
        header(a=entry(shape=[8], offsets=[0, 8]), b=entry(offsets=[2, 6])),
        2 * FOUR,
        "takes bytes 2 to 6",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_lies_are_refused(name, tmp_path):
    text, data, message = LIES[name]
    refused(tmp_path, raw_safetensors(text, data), message)


@pytest.mark.parametrize("length", [0, 1, 3, 99, 1 << 20, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_false_lengths_of_the_header_are_refused(length, tmp_path):
    content = safetensors_bytes({"a": weights(2, 2)})
    assert length != len(content) - 24
    refused(tmp_path, length.to_bytes(8, "little") + content[8:])


def test_honest_files_at_the_edge_are_read(tmp_path):
    path = tmp_path / "x.safetensors"
    several_empty = header(
        a=entry(shape=[0], offsets=[0, 0]), b=entry(shape=[0, 9], offsets=[0, 0])
    )
    for text, data, n_tensors in [
        (b"{}", b"", 0),
        (header(__metadata__={}), b"", 0),
        (several_empty, b"", 2),
        (header(b=entry(offsets=[4, 8]), a=entry()) + b"   ", 2 * FOUR, 2),
        (header(a=entry(), z=entry(shape=[0], offsets=[4, 4])), FOUR, 2),
    ]:
        path.write_bytes(raw_safetensors(text, data))
        assert len(SafetensorsFile.open(path).tensors) == n_tensors


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_in_the_header_is_refused_or_keeps_sizes_true(tmp_path, position, change):
    content = bytearray(safetensors_bytes({"a": weights(3, 5), "b": np.arange(4)}))
    position %= len(content) - 60 - 32
    content[position] ^= change
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    try:
        file = SafetensorsFile.open(path)
    except FormatError:
        return
    assert sum(t.n_bytes for t in file.tensors) == 60 + 32
    for tensor in file.tensors:
        file.read(tensor, 0, tensor.n_weights)


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes({"a": weights(100, 100)}))
    file = SafetensorsFile.open(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(FormatError, match="was truncated while it was read"):
        file.read(file.tensors[0], 0, 10_000)
