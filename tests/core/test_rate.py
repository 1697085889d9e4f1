"""The rate model, the native module and the bytes that are written agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotone import _native
from isotone.codec.arrays import PACKED, PROTECTED_INDEX, PROTECTED_VALUE
from isotone.codec.packed import PackedLayout, encode_chunk
from isotone.core import rate
from isotone.core.cluster import cluster
from isotone.core.clustering.kmeans import KMeansMethod
from isotone.core.clustering.outliers import Protection
from isotone.core.float_format import FloatFormat
from isotone.core.rate import MatrixRate, coded_rank_bits, entropy_bits, overhead_bits
from tests.builders.arrays import arrays_of_tensor
from tests.builders.histograms import histogram_of

counts = st.lists(st.integers(0, 10_000), min_size=1, max_size=256).filter(any).map(np.array)


def test_bits_by_hand():
    # Shares 1/2, 1/4, 1/4: 1.5 bits each. An unused centroid takes its place and no ranks.
    assert entropy_bits(np.array([4, 2, 2, 0])) == 12.0
    assert entropy_bits(np.array([7])) == 0.0
    off = Protection.parse("off")
    apart = KMeansMethod(3, off).assign(histogram_of({0: 4, 1: 2, 2: 2}), MatrixRate(16, 2))
    assert MatrixRate(16, 2).clustered_bits(apart.counts, 0) == 12 + 3 * (32 + 2 * 16)
    assert MatrixRate(16, 2).clustered_bits(apart.counts, 5) == 12 + 3 * (32 + 2 * 16) + 5 * 32
    assert MatrixRate(32, 1).protected_bits == 16 + 32
    assert (rate.CENTROID_BITS, rate.SYMBOL_BITS, rate.POSITION_DELTA_BITS) == (32, 16, 16)
    # A header of 72 bytes that two matrices share, three chunks of 128 bytes of states.
    assert overhead_bits(72, 2, 3, 1000, 80) == 8 * 36 + 8 * 3 * 128 + 80 + 4.0


def test_the_constants_are_those_of_the_native_coder():
    # One symbol alone takes all slots but one, which another symbol must have.
    ranks = np.zeros(1 << 12, np.uint8)
    out = np.empty(1 << 12, np.uint8)
    n_bytes = _native.rans_encode(ranks, 5, out)
    frequencies = out[: rate.SYMBOL_BITS // 8 * 5].view("<u2")
    assert frequencies.sum() == rate.FREQUENCY_SLOTS
    # Ranks of nearly no information need no words: what is left is the head.
    assert n_bytes - rate.rans_head_bytes(5) in range(0, 64, 2)
    assert rate.rans_head_bytes(5) == 2 * 5 + rate.RANS_STATE_BYTES
    assert not _native.rans_decode(out[: rate.rans_head_bytes(5) - 2], 5, ranks)


@given(counts)
def test_a_rank_costs_its_entropy_or_a_slot(counts):
    assert coded_rank_bits(counts) >= entropy_bits(counts) * (1 - 1e-12)
    assert coded_rank_bits(counts) <= counts.sum() * 12.1  # log2 of 4096 slots, and of their excess


@given(counts, st.floats(0.01, 100.0), st.floats(0.0, 1e4))
def test_lloyd_iterations_weigh_the_bits_of_the_model(counts, bit, centroid):
    # To first order in the slots of rare ranks: log2(1 + x) is x / ln 2 there, x below 256 / 4096.
    used = counts[counts > 0]
    values = np.arange(len(used), dtype=np.float64) * 1e9  # no value ever leaves its cluster
    labels = np.arange(len(used), dtype=np.int32)
    cost = _native.lloyd_iterations(values, used.astype(np.float64), bit, centroid, np.inf, labels)
    model = bit * coded_rank_bits(used) + centroid * len(used)
    assert cost >= model * (1 - 1e-9)
    assert cost <= model + bit * used.sum() * (1 / 16) ** 2 / np.log(4) + 1e-9 * cost


@pytest.mark.parametrize("k", [1, 2, 3, 15, 16, 17, 64, 256])
@pytest.mark.parametrize("n", [1, 7, 1000])
def test_a_fixed_width_chunk_is_as_long_as_the_model_says(k, n):
    ranks = np.random.default_rng(k).integers(0, k, n).astype(np.uint8)
    coded, entry = encode_chunk(ranks, k)
    longest = rate.fixed_width_bytes(n, k)
    assert len(coded) <= longest
    assert entry & 1 << 31 == 0 or len(coded) == longest


@pytest.mark.parametrize("shape", [(6,), (2, 3), (3, 50, 60), (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("chunk_weights", [7, 1 << 18])
def test_a_header_is_as_long_as_the_model_says(shape, chunk_weights):
    layout = PackedLayout(shape, FloatFormat.BF16, 4, shape[0], chunk_weights)
    header = layout.header([0] * layout.n_chunks)
    assert len(header) == rate.packed_header_bytes(len(shape), layout.n_chunks)
    assert len(header) == layout.header_bytes


@pytest.mark.parametrize("k", [2, 5, 16, 64, 256])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("scale", ["none", "row", "both"])
@pytest.mark.parametrize("df", [3, 100])
def test_the_model_predicts_what_is_stored(k, dtype, scale, df):
    array = np.random.default_rng(k).standard_t(df, (500, 900)).astype(dtype)
    tensor = cluster(array, k, scale=scale)
    arrays = arrays_of_tensor(tensor)
    layout = PackedLayout(tensor.shape, tensor.float_format, tensor.k, 1)
    n_scales = sum(len(s) for s in (tensor.row_scale, tensor.column_scale) if s is not None)
    assert layout.chunks_a_matrix == 2
    of_clusters = MatrixRate(8 * array.itemsize, layout.chunks_a_matrix).clustered_bits(
        tensor.counts, len(tensor.protected_index)
    )
    of_rest = overhead_bits(
        layout.header_bytes,
        1,
        layout.chunks_a_matrix,
        array.size,
        rate.SCALE_CODE_BITS * n_scales,
    )
    stored = 8 * sum(each.array.nbytes for each in arrays.values())
    # Each chunk follows the frequencies of its own ranks, which the counts of the whole matrix do
    # not tell, and ranks of one bit are stored at a fixed width, without the states of a coder.
    # Bits a weight seen: 0.0044 to 0.0069, and up to 0.0087 for k = 2.
    above = (of_clusters + of_rest - stored) / array.size
    assert 0.0 <= above <= (0.01 if k == 2 else 0.008)


def test_the_model_counts_the_arrays_of_protected_weights():
    array = np.random.default_rng(0).standard_t(3, (200, 300)).astype(np.float16)
    tensor = cluster(array, 16)
    arrays = arrays_of_tensor(tensor)
    stored = arrays[PROTECTED_INDEX].array.nbytes + arrays[PROTECTED_VALUE].array.nbytes
    assert 8 * stored == MatrixRate(16, 1).protected_bits * len(tensor.protected_index)
    assert arrays[PACKED].array.nbytes > 0


@pytest.mark.parametrize("k", [2, 16, 17])
@pytest.mark.parametrize("n_matrices", [1, 3])
def test_what_is_uncoded_is_header_ranks_and_codebooks(k, n_matrices):
    layout = PackedLayout((3, 8, 16), FloatFormat.BF16, k, n_matrices)
    expected = layout.header_bytes + 384 * rate.rank_bits(k) // 8 + 4 * k * n_matrices
    assert rate.uncoded_tensor_bytes(layout.header_bytes, 384, n_matrices, k) == expected
