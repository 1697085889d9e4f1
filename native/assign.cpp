#include "assign.hpp"

#include <algorithm>

#include "histogram.hpp"
#include "simd.hpp"

namespace isotone {

std::vector<std::int64_t> assign16(const std::uint16_t* bits, std::size_t n, const std::uint16_t* labels,
                                   std::uint8_t* ranks) {
  std::vector<std::int64_t> positions;
  constexpr std::size_t block = 64;  // protected weights are rare, so they are looked for a block at a time
  for (std::size_t begin = 0; begin < n; begin += block) {
    const std::size_t end = begin + block < n ? begin + block : n;
    std::uint16_t seen = 0;
    for (std::size_t i = begin; i < end; ++i) {
      const std::uint16_t label = labels[bits[i]];
      seen |= label;
      ranks[i] = static_cast<std::uint8_t>(label);
    }
    if (seen & protected_bit)
      for (std::size_t i = begin; i < end; ++i)
        if (labels[bits[i]] & protected_bit) positions.push_back(static_cast<std::int64_t>(i));
  }
  return positions;
}

std::vector<std::int64_t> assign32(const std::uint32_t* bits, std::size_t n, const std::uint32_t* cell,
                                   const std::uint32_t* starts, std::size_t n_segments,
                                   const std::uint16_t* labels, std::uint8_t* ranks) {
  std::vector<std::int64_t> positions;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t key = order_key(bits[i]);
    std::uint32_t segment = cell[key >> 16];
    while (segment + 1 < n_segments && starts[segment + 1] <= key) ++segment;
    ranks[i] = static_cast<std::uint8_t>(labels[segment]);
    if (labels[segment] & protected_bit) positions.push_back(static_cast<std::int64_t>(i));
  }
  return positions;
}

#ifdef ISOTONE_X86
namespace {

// A table of up to 64 patterns fits two registers, in which one instruction looks up 32 ranks.
__attribute__((target("avx512f,avx512bw"))) std::size_t gather16_avx512(const std::uint8_t* ranks,
                                                                        std::size_t n,
                                                                        const std::uint16_t* table,
                                                                        std::uint16_t* out) {
  const __m512i low = _mm512_loadu_si512(table), high = _mm512_loadu_si512(table + 32);
  std::size_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(ranks + i));
    _mm512_storeu_si512(out + i,
                        _mm512_permutex2var_epi16(low, _mm512_cvtepu8_epi16(bytes), high));
  }
  return i;
}

const bool has_avx512 = __builtin_cpu_supports("avx512bw");

}  // namespace
#endif

void gather16(const std::uint8_t* ranks, std::size_t n, const std::uint16_t* table, std::size_t k,
              std::uint16_t* out) {
  std::size_t i = 0;
#ifdef ISOTONE_X86
  if (has_avx512 && k <= 64) {
    std::uint16_t whole[64] = {};
    std::copy(table, table + k, whole);
    i = gather16_avx512(ranks, n, whole, out);
  }
#else
  static_cast<void>(k);
#endif
  for (; i < n; ++i) out[i] = table[ranks[i]];
}

void gather32(const std::uint8_t* ranks, std::size_t n, const std::uint32_t* table, std::uint32_t* out) {
  for (std::size_t i = 0; i < n; ++i) out[i] = table[ranks[i]];
}

}  // namespace isotone
