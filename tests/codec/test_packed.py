"""Ranks as bytes: fixed widths against a packer of one line, rANS against the second reader."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotone import _native
from isotone.codec.packed import PackedLayout, PackedReader, encode_chunk
from isotone.core.float_format import FloatFormat
from isotone.core.rate import rank_bits
from isotone.errors import FormatError
from tests.builders import second_reader

STATE_BYTES = 128


def pack(ranks, width):
    out = np.empty((len(ranks) * width + 7) // 8, np.uint8)
    _native.pack(np.array(ranks, np.uint8), width, out)
    return out


def reference_pack(ranks, width):
    """All ranks as one long integer."""
    number = sum(int(rank) << (i * width) for i, rank in enumerate(ranks))
    return number.to_bytes((len(ranks) * width + 7) // 8, "little")


@pytest.mark.parametrize("width", range(1, 9))
def test_fixed_width_round_trip_at_every_length(width):
    generator = np.random.default_rng(width)
    for length in [*range(66), 1000, 4093]:
        for ranks in (
            generator.integers(0, 1 << width, length).astype(np.uint8),
            np.full(length, (1 << width) - 1, np.uint8),
        ):
            packed = pack(ranks, width)
            assert packed.tobytes() == reference_pack(ranks, width)
            back = np.full(length, 99, np.uint8)
            _native.unpack(packed, width, back)
            assert np.array_equal(back, ranks)


def test_hand_written_bytes():
    assert pack([1, 0, 1, 1, 0, 0, 0, 1, 1], 1).tolist() == [0b10001101, 0b1]
    assert pack([1, 2, 3], 2).tolist() == [0b111001]
    assert pack([1, 2, 7, 5], 3).tolist() == [0b11010001, 0b1011]
    assert pack([0xA, 0x3, 0xF], 4).tolist() == [0x3A, 0x0F]
    assert pack([31, 0, 1], 5).tolist() == [0b00011111, 0b100]
    assert pack([200, 7], 8).tolist() == [200, 7]


def encode(ranks, k):
    """rANS bytes, given as much room as they can need."""
    out = np.empty(2 * k + STATE_BYTES + 4 * len(ranks) + 64, np.uint8)
    return out[: _native.rans_encode(np.asarray(ranks, np.uint8), k, out)]


def decode(coded, k, n):
    """Ranks, or None where the decoder refuses."""
    ranks = np.empty(n, np.uint8)
    return ranks if _native.rans_decode(np.ascontiguousarray(coded), k, ranks) else None


def spread(generator, k, n, concentration):
    """n ranks below k, from shares that are the more uneven, the smaller the concentration."""
    return generator.choice(k, n, p=generator.dirichlet(np.full(k, concentration))).astype(np.uint8)


@pytest.mark.parametrize("k", [2, 3, 16, 37, 255, 256])
@pytest.mark.parametrize("concentration", [0.01, 0.3, 100.0])
def test_rans_round_trip_and_agreement_with_the_specification(k, concentration):
    # Lengths around the 32 states and the vector loop's last rounds, which plain code finishes.
    generator = np.random.default_rng(k)
    for n in [*range(1, 67), 1000, 4097]:
        ranks = spread(generator, k, n, concentration)
        coded = encode(ranks, k)
        assert np.array_equal(decode(coded, k, n), ranks)
        assert second_reader.rans(coded.tobytes(), k, n) == ranks.tolist()


@given(st.binary(min_size=1, max_size=500), st.integers(2, 256))
def test_rans_round_trip_of_any_ranks(content, k):
    ranks = np.frombuffer(content, np.uint8) % np.uint8(k if k < 256 else 255)
    assert np.array_equal(decode(encode(ranks, k), k, len(ranks)), ranks)


@pytest.mark.parametrize("k", [2, 16, 256])
@pytest.mark.parametrize("rank", [0, 1, -1])
def test_one_rank_alone_takes_next_to_nothing(k, rank):
    ranks = np.full(100_000, rank % k, np.uint8)
    coded = encode(ranks, k)
    assert np.array_equal(decode(coded, k, len(ranks)), ranks)
    # 4095 of 4096 slots: 0.00035 bit a rank.
    assert len(coded) - 2 * k - STATE_BYTES <= 0.0005 * 100_000 / 8


def entropy_bits(ranks):
    shares = np.bincount(ranks) / len(ranks)
    return -sum(share * math.log2(share) for share in shares if share > 0)


@pytest.mark.parametrize("n", [100_000, 1 << 18])
@pytest.mark.parametrize("k", [2, 5, 16, 32, 64])
@pytest.mark.parametrize("concentration", [0.1, 1.0, 100.0])
def test_rans_comes_within_two_hundredths_of_a_bit_of_the_entropy(n, k, concentration):
    # The table of frequencies comes on top: 2 bytes for each of k.
    ranks = spread(np.random.default_rng(k), k, n, concentration)
    assert 8 * (len(encode(ranks, k)) - 2 * k) / n <= entropy_bits(ranks) + 0.02


@pytest.mark.parametrize("k", [2, 16, 37])
def test_a_truncated_or_prolonged_chunk_is_never_accepted(k):
    ranks = spread(np.random.default_rng(k), k, 700, 1.0)
    coded = encode(ranks, k)
    for length in range(len(coded)):
        assert decode(coded[:length], k, len(ranks)) is None
    for more in (1, 2, 64):
        assert decode(np.append(coded, np.zeros(more, np.uint8)), k, len(ranks)) is None


@pytest.mark.parametrize("n", [5, 64, 700])
def test_a_changed_byte_never_gives_other_ranks(n):
    # Words and states all take part in the last states; frequencies move every later one.
    k = 7
    ranks = spread(np.random.default_rng(n), k, n, 1.0)
    coded = encode(ranks, k)
    for position in range(len(coded)):
        for change in (1, 0x80, 0xFF):
            changed = coded.copy()
            changed[position] ^= change
            found = decode(changed, k, n)
            assert found is None or np.array_equal(found, ranks)


@given(st.binary(max_size=600), st.integers(2, 256), st.integers(1, 400))
def test_any_bytes_are_decoded_or_refused_but_never_crash(content, k, n):
    found = decode(np.frombuffer(content, np.uint8), k, n)
    assert found is None or found.max() < k


@given(st.data(), st.integers(2, 40), st.integers(0, 400))
def test_any_words_behind_a_valid_head(data, k, n_words):
    cuts = sorted(data.draw(st.lists(st.integers(1, 4095), min_size=k - 1, max_size=k - 1)))
    frequency = np.diff([0, *cuts, 4096])
    if frequency.max() > 4095:
        return
    states = data.draw(st.lists(st.integers(1 << 16, (1 << 32) - 1), min_size=32, max_size=32))
    words = np.random.default_rng(n_words).integers(0, 256, 2 * n_words).astype(np.uint8)
    head = frequency.astype("<u2").tobytes() + np.array(states, "<u4").tobytes()
    coded = np.append(np.frombuffer(head, np.uint8), words)
    found = decode(coded, k, 500)
    assert found is None or found.max() < k


@pytest.mark.parametrize("k", [1, 2, 16, 17, 200, 256])
def test_a_chunk_takes_the_smaller_of_two_codings(k):
    generator = np.random.default_rng(k)
    for n in (1, 100, 3000):
        for concentration in (0.05, 1000.0):
            ranks = spread(generator, k, n, concentration)
            data, entry = encode_chunk(ranks, k)
            fixed_bytes = math.ceil(n * rank_bits(k) / 8)
            assert len(data) == entry & 0x7FFFFFFF <= fixed_bytes
            is_fixed = bool(entry >> 31)
            assert is_fixed == (len(encode(ranks, max(k, 2))) > fixed_bytes)
            layout = PackedLayout((n,), FloatFormat.F32, k, 1)
            packed = layout.header([entry]) + data.tobytes()
            packed = np.frombuffer(packed + bytes(-len(packed) % 8), np.uint8)
            reader = PackedReader(lambda a, b, p=packed: p[a:b], len(packed), "x")
            assert reader.layout == layout
            assert np.array_equal(reader.decode(0), ranks)


PADDING = bytes(7)


@pytest.mark.parametrize(
    ("ranks", "padding", "said"),
    [
        (0x24, PADDING, None),
        (0x24, bytes(6) + b"\1", "its padding is not zero"),
        (0x24, b"\1" + bytes(6), "its padding is not zero"),
        (0x24, bytes(6), "its chunks end at byte 33"),
        (0x24, bytes(15), "its chunks end at byte 33"),
        (0x64, PADDING, "bits behind its last rank"),
    ],
)
def test_what_is_not_needed_is_zero(ranks, padding, said):
    # Ranks 0, 1 and 2 in two bits each; two bits and seven bytes are left.
    layout = PackedLayout((3,), FloatFormat.F32, 3, 1)
    packed = layout.header([1 | 1 << 31]) + bytes([ranks]) + padding
    packed = np.frombuffer(packed, np.uint8)

    def read():
        return PackedReader(lambda a, b: packed[a:b], len(packed), "h.weight").decode(0)

    if said is None:
        assert read().tolist() == [0, 1, 2]
    else:
        with pytest.raises(FormatError, match=said):
            read()


def test_ranks_beyond_k_are_refused():
    # Three ranks in two bits leave room for a fourth.
    layout = PackedLayout((4,), FloatFormat.F32, 3, 1)
    packed = layout.header([1 | 1 << 31]) + bytes([0b11_10_01_00])
    packed = np.frombuffer(packed + bytes(-len(packed) % 8), np.uint8)
    reader = PackedReader(lambda a, b: packed[a:b], len(packed), "h.weight")
    with pytest.raises(FormatError, match=r"h\.weight: .* chunk 0 holds rank 3 of 3"):
        reader.decode(0)
