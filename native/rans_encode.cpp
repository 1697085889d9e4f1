// Encoding a chunk of ranks with 32 interleaved rANS coders.
#include "rans.hpp"

#include <algorithm>

#include "rans_state.hpp"
#include "simd.hpp"

namespace isotone {
namespace {

// Turns counts into frequencies that sum to 4096. A symbol that occurs has at least 1; none has more than
// 4095, which fits 12 bits.
void normalise(const std::uint64_t* counts, std::size_t k, std::size_t n, std::uint32_t* frequency) {
  std::int64_t left = rans_slots;
  for (std::size_t s = 0; s < k; ++s) {
    const std::uint64_t share = std::clamp<std::uint64_t>(counts[s] * rans_slots / n, 1, rans_slots - 1);
    frequency[s] = counts[s] ? static_cast<std::uint32_t>(share) : 0;
    left -= frequency[s];
  }
  if (left > 0 && std::count_if(frequency, frequency + k, [](auto f) { return f > 0; }) == 1) {
    // If one symbol is alone, its 4096 does not fit 12 bits: another symbol takes the last slot.
    frequency[frequency[0] ? 1 : 0] = 1;
    --left;
  }
  // A slot is given where it saves most, or taken where it costs least: d(bits)/df = count / f.
  for (; left != 0; left += left > 0 ? -1 : 1) {
    std::size_t chosen = k;
    double best = 0.0;
    for (std::size_t s = 0; s < k; ++s) {
      if (left > 0 ? !counts[s] || frequency[s] == rans_slots - 1 : frequency[s] <= 1) continue;
      const double at = frequency[s] + (left > 0 ? 0.5 : -0.5);
      const double worth = static_cast<double>(counts[s]) / at;
      if (chosen == k || (left > 0 ? worth > best : worth < best)) chosen = s, best = worth;
    }
    frequency[chosen] += left > 0 ? 1 : -1;
  }
}

// What the encoder needs to code a symbol of frequency f. It turns a state x into
// (x / f) * 4096 + start + x % f, which is x + bias + (x / f) * (4096 - f); the quotient is the high half
// of x * reciprocal.
struct Symbol {
  std::uint64_t reciprocal;  // ceil(2^64 / f): exact for x < 2^32; f = 1 falls one short, see bias
  std::uint32_t limit;       // f << 20: a state that is not below it must spill a word first
  std::uint16_t bias;
  std::uint16_t complement;

  static Symbol make(std::uint32_t f, std::uint32_t start) {
    const std::uint64_t reciprocal = f > 1 ? ~std::uint64_t{0} / f + 1 : ~std::uint64_t{0};
    // For f = 1 the quotient comes out as x - 1; bias puts the missing 4095 back.
    return {reciprocal, f << 20, static_cast<std::uint16_t>(f > 1 ? start : start + rans_slots - 1),
            static_cast<std::uint16_t>(rans_slots - f)};
  }
};

#ifdef ISOTONE_X86
// What the vector encoder looks up of each symbol, one symbol in each lane.
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

// Codes rounds of 32 ranks, from the last of n ranks towards the first, as long as all words of a round
// have room. Returns the number of ranks that are left. The division is done in float: the quotient is
// below 2^20 and the reciprocal is too small by 2^-22 to 7 * 2^-24 in all, so the result is the quotient
// or one less, which the remainder shows. few: k <= 32, so that the lookup fits registers.
template <bool few>
__attribute__((target("avx512f,avx512bw,avx512vl,popcnt"))) std::size_t code_avx512(
    const Lookup& lookup, const std::uint8_t* ranks, std::size_t n, std::uint32_t* state,
    const std::uint8_t* words_begin, std::uint8_t*& word) {
  const __m512i low = _mm512_loadu_si512(lookup.shares), high = _mm512_loadu_si512(lookup.shares + 16);
  const __m512 low_reciprocals = _mm512_loadu_ps(lookup.reciprocals);
  const __m512 high_reciprocals = _mm512_loadu_ps(lookup.reciprocals + 16);
  __m512i x[2] = {_mm512_loadu_si512(state), _mm512_loadu_si512(state + 16)};
  for (; n > 0 && static_cast<std::size_t>(word - words_begin) >= 2 * rans_lanes; n -= rans_lanes) {
    for (int v = 1; v >= 0; --v) {
      const __m512i rank = _mm512_cvtepu8_epi32(
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(ranks + n - rans_lanes + 16 * v)));
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
                                            _mm512_slli_epi32(quotient, rans_scale_bits));
      x[v] = _mm512_mask_add_epi32(next, one_less, next,
                                   _mm512_sub_epi32(_mm512_set1_epi32(rans_slots), frequency));
    }
  }
  _mm512_storeu_si512(state, x[0]);
  _mm512_storeu_si512(state + 16, x[1]);
  return n;
}

const bool has_avx512 = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("popcnt");
#endif

}  // namespace

std::size_t rans_encode(const std::uint8_t* ranks, std::size_t n, std::size_t k, std::uint8_t* out,
                        std::size_t capacity) {
  const std::size_t head = rans_head_bytes(k);
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

  std::uint32_t x[rans_lanes];
  std::fill(x, x + rans_lanes, rans_lower_bound);
  std::uint8_t* const words_begin = out + head;
  std::uint8_t* word = out + capacity;  // rANS writes backwards; the words are moved to their place below
#ifdef ISOTONE_X86
  const Lookup lookup(frequency, k);
#endif
  for (std::size_t end = n; end > 0;) {
#ifdef ISOTONE_X86
    if (has_avx512 && end % rans_lanes == 0) {
      end = (k <= 32 ? code_avx512<true> : code_avx512<false>)(lookup, ranks, end, x, words_begin, word);
      if (end == 0) break;
    }
#endif
    const std::size_t begin = (end - 1) / rans_lanes * rans_lanes;
    if (static_cast<std::size_t>(word - words_begin) < 2 * rans_lanes) {
      // Near the front of the buffer, check that each word of this round still has room.
      std::size_t needed = 0;
      for (std::size_t i = begin; i < end; ++i)
        needed += x[i - begin] >= symbols[ranks[i]].limit ? 2 : 0;
      if (static_cast<std::size_t>(word - words_begin) < needed) return 0;
    }
    for (std::size_t i = end - begin; i-- > 0;) {
      const Symbol symbol = symbols[ranks[begin + i]];
      // The word is always written (the head lies below and is filled in last), and kept if it
      // counts: a branch here would be mispredicted every fourth time.
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
  for (std::size_t lane = 0; lane < rans_lanes; ++lane) put32(out + 2 * k + 4 * lane, x[lane]);
  const auto n_words_bytes = static_cast<std::size_t>(out + capacity - word);
  std::memmove(words_begin, word, n_words_bytes);
  return head + n_words_bytes;
}

}  // namespace isotone
