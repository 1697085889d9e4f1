"""GGUF files by themselves: hostile ones are refused, blocks of every type are read in ranges."""

from __future__ import annotations

import struct

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from hypothesis import given, settings
from hypothesis import strategies as st

from isotone.checkpoint.gguf.file import GgufFile, is_readable
from isotone.errors import FormatError, InputError
from tests.builders.gguf_models import filled, write

FLOATS = {Type.F32, Type.F16, Type.BF16}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A file with every kind of metadata, and where its last tensor ends."""
    path = tmp_path_factory.mktemp("small") / "model.gguf"
    tensors = filled({"a": ((2, 32), Type.Q4_0), "b": ((3,), Type.F32)})
    numbers = {"block_count": 1, "rope.freq_base": 1.0, "names": ["x", "yz"], "sizes": [1, 2]}
    write(path, "llama", numbers, tensors, tokenizer=False)
    last = GgufFile.open(path).tensors[-1]
    return path, last.offset + last.n_bytes


def test_every_truncation_is_caught(small, tmp_path):
    path, end = small
    content = path.read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in range(end):
        cut.write_bytes(content[:length])
        with pytest.raises(FormatError, match=r"cut\.gguf: "):
            GgufFile.open(cut)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_damage_is_refused_or_harmless(data, small):
    """No other error than FormatError comes of a damaged header, and no read leaves the file."""
    path, end = small
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, end - 8))
        value = data.draw(
            st.one_of(st.binary(min_size=1, max_size=1), st.just(b"\xff" * 8), st.just(bytes(8)))
        )
        content[at : at + len(value)] = value
    damaged = path.with_name("damaged.gguf")
    damaged.write_bytes(content)
    try:
        file = GgufFile.open(damaged)
    except FormatError:
        return
    for tensor in file.tensors:
        assert tensor.offset + tensor.n_bytes <= len(content)


def header(*parts, magic=b"GGUF", version=3, n_tensors=0, n_entries=0):
    return magic + struct.pack("<IQQ", version, n_tensors, n_entries) + b"".join(parts)


def text(value):
    return struct.pack("<Q", len(value)) + value


def array_entry(kind, n_elements):
    return text(b"key") + struct.pack("<IIQ", 9, kind, n_elements)


def tensor_entry(name=b"t", shape=(32,), kind=0, offset=0):
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + sizes + struct.pack("<IQ", kind, offset)


HOSTILE = {
    "empty": (b"", "not a GGUF file"),
    "another format": (b"PK\x03\x04" + bytes(100), "not a GGUF file"),
    "version": (header(version=1), "version 1"),
    "big-endian": (header(version=3 << 24), "big-endian"),
    "count of tensors": (header(n_tensors=1 << 63), "claims 9223372036854775808 tensors"),
    "count of metadata": (header(n_entries=1 << 63), "past the end"),
    "length of a key": (header(struct.pack("<Q", 1 << 62), n_entries=1), "a string of"),
    "length past the end": (header(struct.pack("<Q", 1 << 20), n_entries=1), "past the end"),
    "billion strings": (header(array_entry(8, 1 << 30), n_entries=1), "array of 1073741824"),
    "many numbers": (header(array_entry(0, 1 << 20), n_entries=1), "past the end"),
    "array of arrays": (header(array_entry(9, 1), bytes(99), n_entries=1), "array of type 9"),
    "kind": (header(text(b"key") + struct.pack("<I", 99), n_entries=1), "unknown type 99"),
    "text": (header(text(b"\xff\xfe"), bytes(99), n_entries=1), "not UTF-8"),
    "key twice": (
        header(*[text(b"key") + struct.pack("<IB", 0, 1)] * 2, n_entries=2),
        "'key' twice",
    ),
    "alignment": (
        header(text(b"general.alignment") + struct.pack("<II", 4, 3), n_entries=1),
        "aligns data to 3",
    ),
    "dimensions": (header(tensor_entry(shape=(1,) * 9), n_tensors=1), "9 dimensions"),
    "shape": (header(tensor_entry(shape=(1 << 40, 1 << 40)), n_tensors=1), "claims shape"),
    "blocks": (header(tensor_entry(shape=(33,), kind=2), n_tensors=1), "blocks of 32"),
    "type": (header(tensor_entry(kind=4), n_tensors=1), "ggml type 4"),
    "offset": (
        header(tensor_entry(offset=1 << 62), bytes(999), n_tensors=1),
        "truncated or damaged",
    ),
    "size": (header(tensor_entry(shape=(1 << 30,)), bytes(999), n_tensors=1), "takes bytes"),
    "overlap": (
        header(tensor_entry(b"a"), tensor_entry(b"b", offset=32), bytes(999), n_tensors=2),
        "takes bytes",
    ),
    "name twice": (header(*[tensor_entry()] * 2, bytes(999), n_tensors=2), "names a tensor twice"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_lies_are_refused(name, tmp_path):
    content, message = HOSTILE[name]
    path = tmp_path / "lie.gguf"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        GgufFile.open(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FormatError, match=r"nowhere\.gguf: cannot be read"):
        GgufFile.open(tmp_path / "nowhere.gguf")


@pytest.mark.parametrize("name", ["q4-00001-of-00003.gguf", "q4-00003-of-00003.gguf"])
def test_one_part_of_several_is_known_by_its_name(small, tmp_path, name):
    (tmp_path / name).write_bytes(small[0].read_bytes())
    with pytest.raises(InputError, match="one of 3 parts of a split GGUF; join them first"):
        GgufFile.open(tmp_path / name)


def test_one_part_of_several_is_known_by_its_metadata(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "part.gguf", "llama")
    writer.add_uint16("split.count", 2)
    writer.add_tensor("a", np.zeros((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match="one of 2 parts of a split GGUF"):
        GgufFile.open(tmp_path / "part.gguf")


def test_a_file_that_was_never_split_may_say_so(small, tmp_path):
    (tmp_path / "q4-00001-of-00001.gguf").write_bytes(small[0].read_bytes())
    assert GgufFile.open(tmp_path / "q4-00001-of-00001.gguf").tensors


def test_architecture_must_be_said(tmp_path):
    path = tmp_path / "mute.gguf"
    path.write_bytes(header(bytes(8)))
    with pytest.raises(FormatError, match=r"general\.architecture"):
        _ = GgufFile.open(path).architecture


PLAIN = {Type.F64, Type.I8, Type.I16, Type.I32, Type.I64}
INTERMEDIATE = {Type.Q8_1, Type.Q8_K}  # of products, never of weights in a file
DEQUANTISED = sorted(set(Type) - FLOATS - PLAIN - INTERMEDIATE - {Type.Q1_0})


def write_raw(path, raw, kind):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("t", raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GgufFile.open(path)


@pytest.mark.parametrize("kind", DEQUANTISED, ids=lambda kind: kind.name)
def test_every_block_type_reads_in_ranges(kind, tmp_path):
    """Random bytes as blocks: a range is the slice of gguf's own dequantisation of it all."""
    size, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(1).integers(0, 256, (3, 3 * n_bytes), np.uint8)
    file = write_raw(tmp_path / "t.gguf", raw, kind)
    (tensor,) = file.tensors
    assert tensor.shape == (3, 3 * size)
    assert is_readable(tensor)
    with np.errstate(all="ignore"):
        expected = gguf.dequantize(raw, kind).ravel()
    for start, stop in [(0, 1), (size - 1, 2 * size + 1), (5, 9 * size), (7, 7)]:
        part = file.read_values(tensor, start, stop)
        assert np.array_equal(part, expected[start:stop], equal_nan=True)


@pytest.mark.parametrize("kind", sorted(INTERMEDIATE), ids=lambda kind: kind.name)
def test_types_without_a_dequantisation_say_so(kind, tmp_path):
    raw = np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8)
    assert not is_readable(write_raw(tmp_path / "t.gguf", raw, kind).tensors[0])
