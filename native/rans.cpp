// Range asymmetric numeral systems (Duda, arXiv 1311.2540), the word-wise variant of Giesen's
// ryg_rans (arXiv 1402.3392): 32-bit states, 16-bit words, probabilities in 1/4096. 32 coders take
// the symbols in turn, so that a decoder can run them in vector lanes; each state needs at most one
// word per symbol. Chosen over Huffman for the 0.02 to 0.06 bit a weight that it saves; zstd's Huffman
// stage decodes up to twice as fast (benchmarks/coders.py).
#include "rans.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "simd.hpp"

namespace isotone {
namespace {

constexpr std::size_t lanes = 32;
constexpr unsigned scale_bits = 12;
constexpr std::uint32_t scale = 1u << scale_bits;
constexpr std::uint32_t lower_bound = 1u << 16;  // of a state between symbols
constexpr std::size_t state_bytes = lanes * 4;

inline void put16(std::uint8_t* at, std::uint32_t x) {
  const std::uint8_t bytes[2] = {static_cast<std::uint8_t>(x), static_cast<std::uint8_t>(x >> 8)};
  std::memcpy(at, bytes, 2);
}
void put32(std::uint8_t* at, std::uint32_t x) {
  put16(at, x);
  put16(at + 2, x >> 16);
}
std::uint32_t get16(const std::uint8_t* at) { return at[0] | (std::uint32_t{at[1]} << 8); }
std::uint32_t get32(const std::uint8_t* at) { return get16(at) | (get16(at + 2) << 16); }

// Counts to frequencies that sum to 4096, at least 1 for what occurs, at most 4095 (12 bits).
void normalise(const std::uint64_t* counts, std::size_t k, std::size_t n, std::uint32_t* frequency) {
  std::int64_t left = scale;
  for (std::size_t s = 0; s < k; ++s) {
    const std::uint64_t share = counts[s] * scale / n;
    frequency[s] = counts[s] ? static_cast<std::uint32_t>(std::clamp<std::uint64_t>(share, 1, scale - 1)) : 0;
    left -= frequency[s];
  }
  if (left > 0 && std::count_if(frequency, frequency + k, [](auto f) { return f > 0; }) == 1) {
    // One symbol alone: 4096 has no place in 12 bits, another symbol takes the last slot.
    frequency[frequency[0] ? 1 : 0] = 1;
    --left;
  }
  // Give where a slot saves most, take where it costs least: d(bits)/df = count / f.
  for (; left != 0; left += left > 0 ? -1 : 1) {
    std::size_t chosen = k;
    double best = 0.0;
    for (std::size_t s = 0; s < k; ++s) {
      if (left > 0 ? !counts[s] || frequency[s] == scale - 1 : frequency[s] <= 1) continue;
      const double at = frequency[s] + (left > 0 ? 0.5 : -0.5);
      const double worth = static_cast<double>(counts[s]) / at;
      if (chosen == k || (left > 0 ? worth > best : worth < best)) chosen = s, best = worth;
    }
    frequency[chosen] += left > 0 ? 1 : -1;
  }
}

// What coding one symbol of frequency f needs to turn x into (x / f) * 4096 + start + x % f, which is
// x + bias + (x / f) * (4096 - f), the quotient being the high half of x * reciprocal.
struct Symbol {
  std::uint64_t reciprocal;  // ceil(2^64 / f): exact for x < 2^32; f = 1 falls one short, see bias
  std::uint32_t limit;       // f << 20: from here on the state must spill a word first
  std::uint16_t bias;
  std::uint16_t complement;

  static Symbol make(std::uint32_t f, std::uint32_t start) {
    const std::uint64_t reciprocal = f > 1 ? ~std::uint64_t{0} / f + 1 : ~std::uint64_t{0};
    // For f = 1 the quotient comes out as x - 1; bias puts the missing 4095 back.
    return {reciprocal, f << 20, static_cast<std::uint16_t>(f > 1 ? start : start + scale - 1),
            static_cast<std::uint16_t>(scale - f)};
  }
};

struct Decoder {
  std::array<std::uint32_t, scale> slots;  // symbol | frequency << 8 | offset in symbol << 20
};

bool build(const std::uint8_t* in, std::size_t k, Decoder& decoder) {
  std::uint32_t start = 0;
  for (std::size_t s = 0; s < k; ++s) {
    const std::uint32_t f = get16(in + 2 * s);
    if (f >= scale || start + f > scale) return false;
    for (std::uint32_t i = 0; i < f; ++i)
      decoder.slots[start + i] = static_cast<std::uint32_t>(s) | (f << 8) | (i << 20);
    start += f;
  }
  return start == scale;
}

inline std::uint8_t step(const Decoder& decoder, std::uint32_t& x) {
  const std::uint32_t slot = decoder.slots[x & (scale - 1)];
  x = ((slot >> 8) & 0xfff) * (x >> scale_bits) + (slot >> 20);
  return static_cast<std::uint8_t>(slot);
}

// Decodes whole rounds of 32 symbols while at least 32 words are left; returns the rounds done.
std::size_t rounds_plain(const Decoder& decoder, std::uint32_t* x, const std::uint8_t*& word,
                         const std::uint8_t* end, std::uint8_t* ranks, std::size_t n_rounds) {
  std::size_t round = 0;
  for (; round < n_rounds && static_cast<std::size_t>(end - word) >= 2 * lanes; ++round) {
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      ranks[round * lanes + lane] = step(decoder, x[lane]);
      const bool refill = x[lane] < lower_bound;
      x[lane] = refill ? (x[lane] << 16) | get16(word) : x[lane];
      word += refill ? 2 : 0;
    }
  }
  return round;
}

#ifdef ISOTONE_X86
// permutation[mask] sends the next words of the stream to the lanes set in mask, in order.
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
  const __m256i slot_mask = _mm256_set1_epi32(scale - 1);
  const __m256i byte_mask = _mm256_set1_epi32(0xff);
  const int* slots = reinterpret_cast<const int*>(decoder.slots.data());
  __m256i x[4];
  for (int v = 0; v < 4; ++v) x[v] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(state) + v);
  std::size_t round = 0;
  // A round takes at most 64 bytes, and its last load may look 16 bytes past what it has taken.
  for (; round < n_rounds && static_cast<std::size_t>(end - word) >= 2 * lanes + 16; ++round) {
    __m256i symbol[4];
    for (int v = 0; v < 4; ++v) {
      const __m256i slot = _mm256_i32gather_epi32(slots, _mm256_and_si256(x[v], slot_mask), 4);
      symbol[v] = _mm256_and_si256(slot, byte_mask);
      const __m256i frequency = _mm256_and_si256(_mm256_srli_epi32(slot, 8), slot_mask);
      __m256i next = _mm256_mullo_epi32(frequency, _mm256_srli_epi32(x[v], scale_bits));
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
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(ranks + round * lanes), bytes);
  }
  for (int v = 0; v < 4; ++v) _mm256_storeu_si256(reinterpret_cast<__m256i*>(state) + v, x[v]);
  return round;
}

// As above with 16 lanes a vector; the expansion of words to lanes is one instruction.
__attribute__((target("avx512f,avx512bw,avx512vl,popcnt"))) std::size_t rounds_avx512(
    const Decoder& decoder, std::uint32_t* state, const std::uint8_t*& word, const std::uint8_t* end,
    std::uint8_t* ranks, std::size_t n_rounds) {
  const __m512i slot_mask = _mm512_set1_epi32(scale - 1);
  const __m512i bound = _mm512_set1_epi32(lower_bound);
  __m512i x[2] = {_mm512_loadu_si512(state), _mm512_loadu_si512(state + 16)};
  std::size_t round = 0;
  for (; round < n_rounds && static_cast<std::size_t>(end - word) >= 2 * lanes + 32; ++round) {
    for (int v = 0; v < 2; ++v) {
      const __m512i slot =
          _mm512_i32gather_epi32(_mm512_and_si512(x[v], slot_mask), decoder.slots.data(), 4);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(ranks + round * lanes + 16 * v),
                       _mm512_cvtepi32_epi8(slot));
      const __m512i frequency = _mm512_and_si512(_mm512_srli_epi32(slot, 8), slot_mask);
      __m512i next = _mm512_mullo_epi32(frequency, _mm512_srli_epi32(x[v], scale_bits));
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

// What coding needs of each symbol, for vector lanes.
struct Lookup {
  std::uint32_t shares[256] = {};  // frequency | start << 16
  float reciprocals[256] = {};     // of the frequency, a trifle too small: see code_avx512

  Lookup(const std::uint32_t* frequency, std::size_t k) {
    std::uint32_t start = 0;
    for (std::size_t s = 0; s < k; start += frequency[s++]) {
      shares[s] = frequency[s] | (start << 16);
      reciprocals[s] = frequency[s] ? static_cast<float>((1.0 - 0x1p-22) / frequency[s]) : 0.0f;
    }
  }
};

// Codes rounds from the last of n ranks towards the first, while there is room for all words of one;
// returns the number of ranks left. The division is done in float: the quotient is below 2^20, the
// reciprocal too small by 2^-22 to 7 * 2^-24 in all, so what comes out is the quotient or one less,
// which the remainder tells. few: k <= 32, the lookup fits registers.
template <bool few>
__attribute__((target("avx512f,avx512bw,avx512vl,popcnt"))) std::size_t code_avx512(
    const Lookup& lookup, const std::uint8_t* ranks, std::size_t n, std::uint32_t* state,
    const std::uint8_t* words_begin, std::uint8_t*& word) {
  const __m512i low = _mm512_loadu_si512(lookup.shares), high = _mm512_loadu_si512(lookup.shares + 16);
  const __m512 low_reciprocals = _mm512_loadu_ps(lookup.reciprocals);
  const __m512 high_reciprocals = _mm512_loadu_ps(lookup.reciprocals + 16);
  __m512i x[2] = {_mm512_loadu_si512(state), _mm512_loadu_si512(state + 16)};
  for (; n > 0 && static_cast<std::size_t>(word - words_begin) >= 2 * lanes; n -= lanes) {
    for (int v = 1; v >= 0; --v) {
      const __m512i rank = _mm512_cvtepu8_epi32(
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(ranks + n - lanes + 16 * v)));
      const __m512i share = few ? _mm512_permutex2var_epi32(low, rank, high)
                                : _mm512_i32gather_epi32(rank, lookup.shares, 4);
      const __m512 reciprocal =
          few ? _mm512_permutex2var_ps(low_reciprocals, rank, high_reciprocals)
              : _mm512_i32gather_ps(rank, lookup.reciprocals, 4);
      const __m512i frequency = _mm512_and_si512(share, _mm512_set1_epi32(0xffff));

      const __mmask16 spill = _mm512_cmpge_epu32_mask(x[v], _mm512_slli_epi32(frequency, 20));
      const int n_spilt = __builtin_popcount(spill);
      word -= 2 * n_spilt;
      _mm256_mask_storeu_epi16(word, static_cast<__mmask16>((1u << n_spilt) - 1),
                               _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(spill, x[v])));
      x[v] = _mm512_mask_srli_epi32(x[v], spill, x[v], 16);

      const __m512i quotient =
          _mm512_cvttps_epi32(_mm512_mul_ps(_mm512_cvtepu32_ps(x[v]), reciprocal));
      const __m512i rest = _mm512_sub_epi32(x[v], _mm512_mullo_epi32(quotient, frequency));
      const __mmask16 one_less = _mm512_cmpge_epu32_mask(rest, frequency);
      const __m512i next = _mm512_add_epi32(_mm512_add_epi32(rest, _mm512_srli_epi32(share, 16)),
                                            _mm512_slli_epi32(quotient, scale_bits));
      x[v] = _mm512_mask_add_epi32(next, one_less, next,
                                   _mm512_sub_epi32(_mm512_set1_epi32(scale), frequency));
    }
  }
  _mm512_storeu_si512(state, x[0]);
  _mm512_storeu_si512(state + 16, x[1]);
  return n;
}

const bool has_avx512 = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("popcnt");
const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
#endif

}  // namespace

std::size_t rans_encode(const std::uint8_t* ranks, std::size_t n, std::size_t k, std::uint8_t* out,
                        std::size_t capacity) {
  const std::size_t head = 2 * k + state_bytes;
  if (n == 0 || capacity < head) return 0;

  std::uint64_t counts[4][256] = {};
  std::size_t counted = 0;
  for (; counted + 4 <= n; counted += 4)
    for (std::size_t t = 0; t < 4; ++t) ++counts[t][ranks[counted + t]];
  for (; counted < n; ++counted) ++counts[0][ranks[counted]];
  for (std::size_t s = 0; s < 256; ++s) counts[0][s] += counts[1][s] + counts[2][s] + counts[3][s];
  std::uint32_t frequency[256];
  normalise(counts[0], k, n, frequency);

  Symbol symbols[256] = {};
  std::uint32_t start = 0;
  for (std::size_t s = 0; s < k; ++s) {
    const std::uint32_t f = frequency[s];
    put16(out + 2 * s, f);
    if (f == 0) continue;
    symbols[s] = Symbol::make(f, start);
    start += f;
  }

  std::uint32_t x[lanes];
  std::fill(x, x + lanes, lower_bound);
  std::uint8_t* const words_begin = out + head;
  std::uint8_t* word = out + capacity;  // rANS writes backwards; moved to its place below
#ifdef ISOTONE_X86
  const Lookup lookup(frequency, k);
#endif
  for (std::size_t end = n; end > 0;) {
#ifdef ISOTONE_X86
    if (has_avx512 && end % lanes == 0) {
      end = (k <= 32 ? code_avx512<true> : code_avx512<false>)(lookup, ranks, end, x, words_begin, word);
      if (end == 0) break;
    }
#endif
    const std::size_t begin = (end - 1) / lanes * lanes;
    if (static_cast<std::size_t>(word - words_begin) < 2 * lanes) {
      // Near the front of the buffer: is there still room for each word of this round?
      std::size_t needed = 0;
      for (std::size_t i = begin; i < end; ++i)
        needed += x[i - begin] >= symbols[ranks[i]].limit ? 2 : 0;
      if (static_cast<std::size_t>(word - words_begin) < needed) return 0;
    }
    for (std::size_t i = end - begin; i-- > 0;) {
      const Symbol symbol = symbols[ranks[begin + i]];
      // Written in any case (the head lies below, and is filled in last), kept where it counts:
      // a branch here would be guessed wrong every fourth time.
      const unsigned spill = x[i] >= symbol.limit;
      put16(word - 2, x[i]);
      word -= 2 * spill;
      const std::uint32_t state = x[i] >> (16 * spill);
      const auto quotient = static_cast<std::uint32_t>(
          (static_cast<unsigned __int128>(state) * symbol.reciprocal) >> 64);
      x[i] = state + symbol.bias + quotient * symbol.complement;
    }
    end = begin;
  }
  for (std::size_t lane = 0; lane < lanes; ++lane) put32(out + 2 * k + 4 * lane, x[lane]);
  const auto n_words_bytes = static_cast<std::size_t>(out + capacity - word);
  std::memmove(words_begin, word, n_words_bytes);
  return head + n_words_bytes;
}

bool rans_decode(const std::uint8_t* in, std::size_t size, std::size_t k, std::uint8_t* ranks,
                 std::size_t n) {
  const std::size_t head = 2 * k + state_bytes;
  if (size < head || (size - head) % 2) return false;
  Decoder decoder;
  if (!build(in, k, decoder)) return false;
  std::uint32_t x[lanes];
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    x[lane] = get32(in + 2 * k + 4 * lane);
    if (x[lane] < lower_bound) return false;
  }
  const std::uint8_t* word = in + head;
  const std::uint8_t* const end = in + size;
  const std::size_t n_rounds = n / lanes;
  std::size_t done = 0;
#ifdef ISOTONE_X86
  if (has_avx512)
    done = rounds_avx512(decoder, x, word, end, ranks, n_rounds);
  else if (has_avx2)
    done = rounds_avx2(decoder, x, word, end, ranks, n_rounds);
#endif
  done += rounds_plain(decoder, x, word, end, ranks + done * lanes, n_rounds - done);
  for (std::size_t i = done * lanes; i < n; ++i) {
    std::uint32_t& state = x[i % lanes];
    ranks[i] = step(decoder, state);
    if (state < lower_bound) {
      if (end - word < 2) return false;
      state = (state << 16) | get16(word);
      word += 2;
    }
  }
  // The coders began at the lower bound and left no word unread: a check on the whole chunk.
  return word == end && std::all_of(x, x + lanes, [](auto s) { return s == lower_bound; });
}

}  // namespace isotone
