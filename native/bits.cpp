#include "bits.hpp"

#include <cstring>

#include "simd.hpp"

namespace isotone {
namespace {

// Eight codes of `width` bits are exactly `width` bytes, which a 64-bit word holds for any width.
template <unsigned width>
void pack_eights(const std::uint8_t* ranks, std::size_t n_eights, std::uint8_t* out) {
  for (std::size_t i = 0; i < n_eights; ++i) {
    std::uint64_t word = 0;
    for (unsigned j = 0; j < 8; ++j) word |= std::uint64_t{ranks[8 * i + j]} << (j * width);
    for (unsigned b = 0; b < width; ++b) out[i * width + b] = static_cast<std::uint8_t>(word >> (8 * b));
  }
}

template <unsigned width>
void unpack_eights(const std::uint8_t* in, std::size_t n_eights, std::uint8_t* ranks) {
  constexpr std::uint64_t mask = (1u << width) - 1;
  for (std::size_t i = 0; i < n_eights; ++i) {
    std::uint64_t word = 0;
    for (unsigned b = 0; b < width; ++b) word |= std::uint64_t{in[i * width + b]} << (8 * b);
    for (unsigned j = 0; j < 8; ++j)
      ranks[8 * i + j] = static_cast<std::uint8_t>((word >> (j * width)) & mask);
  }
}

using Pack = void (*)(const std::uint8_t*, std::size_t, std::uint8_t*);
constexpr Pack packers[] = {nullptr,         pack_eights<1>, pack_eights<2>, pack_eights<3>, pack_eights<4>,
                            pack_eights<5>, pack_eights<6>, pack_eights<7>, pack_eights<8>};
constexpr Pack unpackers[] = {nullptr,           unpack_eights<1>, unpack_eights<2>,
                              unpack_eights<3>, unpack_eights<4>, unpack_eights<5>,
                              unpack_eights<6>, unpack_eights<7>, unpack_eights<8>};

#ifdef ISOTONE_X86
// One instruction distributes eight codes over eight bytes. It reads a whole word, so the last eights,
// behind which there may be nothing to read, are left to the caller. Returns how many it has decoded.
__attribute__((target("bmi2"))) std::size_t unpack_eights_bmi2(const std::uint8_t* in, std::size_t n_eights,
                                                               unsigned width, std::uint8_t* ranks) {
  const std::uint64_t mask = 0x0101010101010101u * ((1u << width) - 1);
  const std::size_t n_bytes = n_eights * width;
  std::size_t i = 0;
  for (; i * width + 8 <= n_bytes; ++i) {
    std::uint64_t word;
    std::memcpy(&word, in + i * width, 8);
    word = _pdep_u64(word, mask);
    std::memcpy(ranks + 8 * i, &word, 8);
  }
  return i;
}

const bool has_bmi2 = __builtin_cpu_supports("bmi2");
#endif

}  // namespace

void pack(const std::uint8_t* ranks, std::size_t n, unsigned width, std::uint8_t* out) {
  const std::size_t n_eights = n / 8, rest = n % 8;
  packers[width](ranks, n_eights, out);
  if (rest == 0) return;
  std::uint8_t last[8] = {}, bytes[8];
  std::memcpy(last, ranks + 8 * n_eights, rest);
  packers[width](last, 1, bytes);
  std::memcpy(out + n_eights * width, bytes, (rest * width + 7) / 8);
}

void unpack(const std::uint8_t* in, std::size_t n, unsigned width, std::uint8_t* ranks) {
  const std::size_t n_eights = n / 8, rest = n % 8;
  std::size_t done = 0;
#ifdef ISOTONE_X86
  if (has_bmi2) done = unpack_eights_bmi2(in, n_eights, width, ranks);
#endif
  unpackers[width](in + done * width, n_eights - done, ranks + 8 * done);
  if (rest == 0) return;
  std::uint8_t bytes[8] = {}, last[8];
  std::memcpy(bytes, in + n_eights * width, (rest * width + 7) / 8);
  unpackers[width](bytes, 1, last);
  std::memcpy(ranks + 8 * n_eights, last, rest);
}

}  // namespace isotone
