"""A clustered tensor as named arrays: everything comes back, and what does not fit is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotone.codec.arrays import (
    CODEBOOK,
    COLUMN_SCALE,
    PACKED,
    PROTECTED_INDEX,
    PROTECTED_VALUE,
    ROW_SCALE,
    StoredArray,
)
from isotone.codec.packed import PackedLayout, PackedReader
from isotone.core.cluster import cluster
from isotone.core.clustered_tensor import ClusteredTensor
from isotone.core.float_format import FloatFormat
from isotone.core.values import Values
from isotone.errors import FormatError, InputError
from tests.builders import second_reader
from tests.builders.arrays import arrays_of_tensor, packed_array, tensor_of_arrays

FORMATS = st.sampled_from(list(FloatFormat))
VIEWS = {"U8": "u1", "U16": "<u2", "BF16": "<u2", "F16": "<f2", "F32": "<f4"}


@st.composite
def clustered_tensors(draw):
    """Any tensor there can be, with weights that no solver would have chosen."""
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)))
    stacked = len(shape) > 1 and draw(st.booleans())
    k = draw(st.integers(1, 256))
    generator = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    float_format = draw(FORMATS)
    n_matrices = shape[0] if stacked else 1
    matrix_shape = shape[1:] if stacked else shape
    codebook = np.sort(generator.choice(1 << 20, (n_matrices, k)).astype(np.float32), axis=1)
    codebook += np.arange(k, dtype=np.float32)

    def scale(length):
        if not draw(st.booleans()):
            return None
        dtype = draw(st.sampled_from([np.float16, np.float32]))
        scales = generator.uniform(0.1, 3, (n_matrices, length)).astype(dtype)
        return scales if stacked else scales[0]

    n_rows = matrix_shape[0]
    n_weights = int(np.prod(shape))
    index = np.flatnonzero(generator.random(n_weights) < draw(st.sampled_from([0, 0.1, 1])))
    protected = generator.standard_normal(len(index)).astype(np.float32)
    ranks = generator.integers(0, k, shape).astype(np.uint8)
    values = Values(
        shape=shape,
        float_format=float_format,
        codebook=codebook if stacked else codebook[0],
        row_scale=scale(n_rows),
        column_scale=scale(int(np.prod(matrix_shape)) // n_rows),
        protected_index=index,
        protected_value=float_format.downcast(protected),
    )
    return ClusteredTensor(values, ranks)


def same(one, other):
    return np.array_equal(one.ranks, other.ranks) and all(
        np.array_equal(getattr(one.values, field.name), getattr(other.values, field.name))
        for field in dataclasses.fields(Values)
    )


@given(clustered_tensors())
def test_a_tensor_comes_back_from_its_arrays(tensor):
    arrays = arrays_of_tensor(tensor)
    back = tensor_of_arrays(arrays, "x")
    assert same(back, tensor)
    assert np.array_equal(back.dense_bits(), tensor.dense_bits())
    parts = {suffix: stored.array.view(VIEWS[stored.tag]) for suffix, stored in arrays.items()}
    dense = second_reader.dense_tensor(parts)
    assert np.array_equal(dense.view(back.float_format.bits_dtype).reshape(-1), back.dense_bits())


@given(clustered_tensors())
def test_dense_weights_follow_the_documented_order_of_products(tensor):
    matrices = tensor.ranks.reshape(tensor.n_matrices, -1)
    expected = np.empty(matrices.shape, np.float32)
    shape = tensor.shape if tensor.codebook.ndim == 1 else tensor.shape[1:]
    for m, ranks in enumerate(matrices):
        value = tensor.codebook.reshape(tensor.n_matrices, -1)[m][ranks].reshape(shape[0], -1)
        if tensor.row_scale is not None:
            scales = tensor.row_scale.reshape(tensor.n_matrices, -1)[m]
            value = value * scales.astype(np.float32)[:, None]
        if tensor.column_scale is not None:
            scales = tensor.column_scale.reshape(tensor.n_matrices, -1)[m]
            value = value * scales.astype(np.float32)[None, :]
        assert value.dtype == np.float32
        expected[m] = value.reshape(-1)
    patterns = tensor.float_format.downcast(expected.reshape(-1))
    patterns[tensor.protected_index] = tensor.protected_value
    assert np.array_equal(tensor.dense_bits(), patterns)
    assert np.array_equal(tensor.dense().reshape(-1), tensor.float_format.upcast(patterns))


@pytest.mark.parametrize("chunk_weights", [1, 7, 64, 1 << 18])
def test_every_chunk_decodes_by_itself(chunk_weights):
    # A chunk never crosses from one matrix of a stack into the next.
    ranks = np.random.default_rng(0).integers(0, 5, (3, 100)).astype(np.uint8)
    layout = PackedLayout((3, 10, 10), FloatFormat.BF16, 5, 3, chunk_weights)
    spans = [layout.span(chunk) for chunk in range(layout.n_chunks)]
    packed = packed_array(ranks, layout)
    reader = PackedReader(lambda a, b: packed[a:b], len(packed), "x")
    for chunk in reversed(range(layout.n_chunks)):
        matrix, start, stop = spans[chunk]
        assert np.array_equal(reader.decode(chunk), ranks[matrix, start:stop])
    assert sum(stop - start for _, start, stop in spans) == 300


def a_tensor(stack=False):
    array = np.random.default_rng(1).standard_t(2, (4, 8, 9)).astype(np.float32)
    found = cluster(array if stack else array[0], 5, protect="0.05", stack=stack)
    n_matrices = 4 if stack else 1
    values = dataclasses.replace(
        found.values,
        row_scale=np.ones((n_matrices, 8), np.float16).squeeze(),
        column_scale=np.ones((n_matrices, 9), np.float32).squeeze(),
    )
    return ClusteredTensor(values, found.ranks)


def floats(*shape, fill=1.0):
    return StoredArray("F32", np.full(shape, fill, np.float32))


def halves(*shape, fill=1.0):
    return StoredArray("F16", np.full(shape, fill, np.float16))


BROKEN = {
    "empty packed": (PACKED, StoredArray("U8", np.zeros(0, np.uint8))),
    "no codebook": (CODEBOOK, None),
    "codebook of halves": (CODEBOOK, halves(5)),
    "short codebook": (CODEBOOK, floats(4)),
    "stacked codebook": (CODEBOOK, floats(2, 5)),
    "codebook with NaN": (CODEBOOK, floats(5, fill=np.nan)),
    "infinite codebook": (CODEBOOK, floats(5, fill=np.inf)),
    "short row scale": (ROW_SCALE, floats(7)),
    "row scale of integers": (ROW_SCALE, StoredArray("U16", np.ones(8, np.uint16))),
    "row scale of zero": (ROW_SCALE, halves(8, fill=0)),
    "negative column scale": (COLUMN_SCALE, floats(9, fill=-1)),
    "column scale of NaN": (COLUMN_SCALE, floats(9, fill=np.nan)),
    "long column scale": (COLUMN_SCALE, floats(18)),
    "protected values without positions": (PROTECTED_INDEX, None),
    "protected positions without values": (PROTECTED_VALUE, None),
    "protected values of another dtype": (PROTECTED_VALUE, halves(3)),
    "protected values of another number": (PROTECTED_VALUE, floats(1)),
    "positions of another dtype": (PROTECTED_INDEX, floats(3)),
    "positions beyond": (PROTECTED_INDEX, StoredArray("U16", np.full(3, 70, np.uint16))),
}


@pytest.mark.parametrize("name", BROKEN)
def test_arrays_that_do_not_fit_together_are_refused_by_name(name):
    arrays = arrays_of_tensor(a_tensor())
    assert len(arrays) == 6
    suffix, replacement = BROKEN[name]
    if replacement is None:
        del arrays[suffix]
    else:
        arrays[suffix] = replacement
    with pytest.raises(FormatError, match=r"h\.weight"):
        tensor_of_arrays(arrays, "h.weight")


def test_a_stack_needs_a_codebook_for_each_matrix():
    arrays = arrays_of_tensor(a_tensor(stack=True))
    assert same(tensor_of_arrays(arrays, "x"), a_tensor(stack=True))
    for codebook in (floats(5), floats(3, 5), floats(5, 4)):
        with pytest.raises(FormatError, match="x: "):
            tensor_of_arrays({**arrays, CODEBOOK: codebook}, "x")


def test_a_truncated_or_flipped_packed_array_is_refused_or_harmless():
    # Ranks at a fixed width have no redundancy: the hashes of the manifest watch over those.
    tensor = a_tensor()
    arrays = arrays_of_tensor(tensor)
    packed = arrays[PACKED].array
    ranks_begin = 20 + 8 * 2 + 4  # two axes, one chunk, of 72 ranks in 3 bits each
    ranks = range(ranks_begin, ranks_begin + 27)
    for position in range(len(packed)):
        for changed in (packed[:position], packed.copy()):
            if len(changed) > position:
                changed[position] ^= 0x15
            try:
                found = tensor_of_arrays({**arrays, PACKED: StoredArray("U8", changed)}, "x")
            except FormatError:
                continue
            assert position in ranks or same(found, tensor), f"byte {position}"


@pytest.mark.parametrize("shape", [(), (1,) * 9])
def test_shapes_that_a_header_has_no_room_for_are_refused(shape):
    tensor = cluster(np.ones(shape, np.float32), 2)
    with pytest.raises(FormatError, match=f"{len(shape)} axes"):
        tensor_of_arrays(arrays_of_tensor(tensor), "x")


def test_with_codebook_shares_the_ranks():
    tensor = a_tensor()
    other = tensor.with_codebook(tensor.codebook[::-1].copy())
    assert other.ranks is tensor.ranks
    assert np.array_equal(other.codebook, tensor.codebook[::-1])
    for bad in (np.zeros(4, np.float32), np.zeros(5), np.full(5, np.nan, np.float32)):
        with pytest.raises(InputError, match="codebook"):
            tensor.with_codebook(bad)
