// Decoding a chunk of ranks that was coded with 32 interleaved rANS coders.
#include "rans.hpp"

#include <algorithm>
#include <array>

#include "rans_state.hpp"
#include "simd.hpp"

namespace isotone {
namespace {

struct Decoder {
  std::array<std::uint32_t, rans_slots> slots;  // symbol | frequency << 8 | offset in symbol << 20
};

// Fills the slots from the frequencies of k symbols; false if they do not sum to 4096.
bool build(const std::uint8_t* in, std::size_t k, Decoder& decoder) {
  std::uint32_t start = 0;
  for (std::size_t s = 0; s < k; ++s) {
    const std::uint32_t f = get16(in + 2 * s);
    if (f >= rans_slots || start + f > rans_slots) return false;
    for (std::uint32_t i = 0; i < f; ++i)
      decoder.slots[start + i] = static_cast<std::uint32_t>(s) | (f << 8) | (i << 20);
    start += f;
  }
  return start == rans_slots;
}

// Takes one symbol off a state, which may then be below the lower bound.
inline std::uint8_t step(const Decoder& decoder, std::uint32_t& x) {
  const std::uint32_t slot = decoder.slots[x & (rans_slots - 1)];
  x = ((slot >> 8) & 0xfff) * (x >> rans_scale_bits) + (slot >> 20);
  return static_cast<std::uint8_t>(slot);
}

// Decodes whole rounds of 32 symbols while at least 32 words are left. Returns the number of rounds.
std::size_t rounds_plain(const Decoder& decoder, std::uint32_t* x, const std::uint8_t*& word,
                         const std::uint8_t* end, std::uint8_t* ranks, std::size_t n_rounds) {
  std::size_t round = 0;
  for (; round < n_rounds && static_cast<std::size_t>(end - word) >= 2 * rans_lanes; ++round) {
    for (std::size_t lane = 0; lane < rans_lanes; ++lane) {
      ranks[round * rans_lanes + lane] = step(decoder, x[lane]);
      const bool refill = x[lane] < rans_lower_bound;
      x[lane] = refill ? (x[lane] << 16) | get16(word) : x[lane];
      word += refill ? 2 : 0;
    }
  }
  return round;
}

#ifdef ISOTONE_X86
// permutation[mask] sends the next words of the stream to the lanes that are set in mask, in order.
struct Permutations {
  alignas(32) std::uint32_t lane[256][8];
  Permutations() {
    for (unsigned mask = 0; mask < 256; ++mask) {
      std::uint32_t next = 0;
      for (unsigned i = 0; i < 8; ++i) lane[mask][i] = (mask >> i) & 1 ? next++ : 0;
    }
  }
};
const Permutations permutations;

__attribute__((target("avx2,popcnt"))) std::size_t rounds_avx2(
    const Decoder& decoder, std::uint32_t* state, const std::uint8_t*& word, const std::uint8_t* end,
    std::uint8_t* ranks, std::size_t n_rounds) {
  const __m256i slot_mask = _mm256_set1_epi32(rans_slots - 1);
  const __m256i byte_mask = _mm256_set1_epi32(0xff);
  const int* slots = reinterpret_cast<const int*>(decoder.slots.data());
  __m256i x[4];
  for (int v = 0; v < 4; ++v) x[v] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(state) + v);
  std::size_t round = 0;
  // A round takes at most 64 bytes, and its last load may read 16 bytes beyond them.
  for (; round < n_rounds && static_cast<std::size_t>(end - word) >= 2 * rans_lanes + 16; ++round) {
    __m256i symbol[4];
    for (int v = 0; v < 4; ++v) {
      const __m256i slot = _mm256_i32gather_epi32(slots, _mm256_and_si256(x[v], slot_mask), 4);
      symbol[v] = _mm256_and_si256(slot, byte_mask);
      const __m256i frequency = _mm256_and_si256(_mm256_srli_epi32(slot, 8), slot_mask);
      __m256i next = _mm256_mullo_epi32(frequency, _mm256_srli_epi32(x[v], rans_scale_bits));
      next = _mm256_add_epi32(next, _mm256_srli_epi32(slot, 20));
      const __m256i small = _mm256_cmpeq_epi32(_mm256_srli_epi32(next, 16), _mm256_setzero_si256());
      const unsigned mask = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(small)));
      const __m256i words =
          _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(word)));
      const __m256i order = _mm256_load_si256(reinterpret_cast<const __m256i*>(permutations.lane[mask]));
      const __m256i refilled =
          _mm256_or_si256(_mm256_slli_epi32(next, 16), _mm256_permutevar8x32_epi32(words, order));
      x[v] = _mm256_blendv_epi8(next, refilled, small);
      word += 2 * __builtin_popcount(mask);
    }
    const __m256i low = _mm256_packus_epi32(symbol[0], symbol[1]);
    const __m256i high = _mm256_packus_epi32(symbol[2], symbol[3]);
    const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high),
                                                      _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(ranks + round * rans_lanes), bytes);
  }
  for (int v = 0; v < 4; ++v) _mm256_storeu_si256(reinterpret_cast<__m256i*>(state) + v, x[v]);
  return round;
}

// The same with 16 lanes in a vector; the expansion of words to lanes is one instruction.
__attribute__((target("avx512f,avx512bw,avx512vl,popcnt"))) std::size_t rounds_avx512(
    const Decoder& decoder, std::uint32_t* state, const std::uint8_t*& word, const std::uint8_t* end,
    std::uint8_t* ranks, std::size_t n_rounds) {
  const __m512i slot_mask = _mm512_set1_epi32(rans_slots - 1);
  const __m512i bound = _mm512_set1_epi32(rans_lower_bound);
  __m512i x[2] = {_mm512_loadu_si512(state), _mm512_loadu_si512(state + 16)};
  std::size_t round = 0;
  for (; round < n_rounds && static_cast<std::size_t>(end - word) >= 2 * rans_lanes + 32; ++round) {
    for (int v = 0; v < 2; ++v) {
      const __m512i slot =
          _mm512_i32gather_epi32(_mm512_and_si512(x[v], slot_mask), decoder.slots.data(), 4);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(ranks + round * rans_lanes + 16 * v),
                       _mm512_cvtepi32_epi8(slot));
      const __m512i frequency = _mm512_and_si512(_mm512_srli_epi32(slot, 8), slot_mask);
      __m512i next = _mm512_mullo_epi32(frequency, _mm512_srli_epi32(x[v], rans_scale_bits));
      next = _mm512_add_epi32(next, _mm512_srli_epi32(slot, 20));
      const __mmask16 small = _mm512_cmplt_epu32_mask(next, bound);
      const __m512i words =
          _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(word)));
      x[v] = _mm512_mask_or_epi32(next, small, _mm512_slli_epi32(next, 16),
                                  _mm512_maskz_expand_epi32(small, words));
      word += 2 * __builtin_popcount(small);
    }
  }
  _mm512_storeu_si512(state, x[0]);
  _mm512_storeu_si512(state + 16, x[1]);
  return round;
}

const bool has_avx512 = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("popcnt");
const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
#endif

}  // namespace

bool rans_decode(const std::uint8_t* in, std::size_t size, std::size_t k, std::uint8_t* ranks,
                 std::size_t n) {
  const std::size_t head = rans_head_bytes(k);
  if (size < head || (size - head) % 2) return false;
  Decoder decoder;
  if (!build(in, k, decoder)) return false;
  std::uint32_t x[rans_lanes];
  for (std::size_t lane = 0; lane < rans_lanes; ++lane) {
    x[lane] = get32(in + 2 * k + 4 * lane);
    if (x[lane] < rans_lower_bound) return false;
  }
  const std::uint8_t* word = in + head;
  const std::uint8_t* const end = in + size;
  const std::size_t n_rounds = n / rans_lanes;
  std::size_t done = 0;
#ifdef ISOTONE_X86
  if (has_avx512)
    done = rounds_avx512(decoder, x, word, end, ranks, n_rounds);
  else if (has_avx2)
    done = rounds_avx2(decoder, x, word, end, ranks, n_rounds);
#endif
  done += rounds_plain(decoder, x, word, end, ranks + done * rans_lanes, n_rounds - done);
  for (std::size_t i = done * rans_lanes; i < n; ++i) {
    std::uint32_t& state = x[i % rans_lanes];
    ranks[i] = step(decoder, state);
    if (state < rans_lower_bound) {
      if (end - word < 2) return false;
      state = (state << 16) | get16(word);
      word += 2;
    }
  }
  // The encoder began with all states at the lower bound and wrote no word too many, so this is a check
  // on the whole chunk.
  return word == end && std::all_of(x, x + rans_lanes, [](auto s) { return s == rans_lower_bound; });
}

}  // namespace isotone
