#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

// float32 values and their bit patterns.
namespace isotone {

inline float as_float(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline std::uint32_t as_bits(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

// The half-precision pattern nearest to a value, without subnormal ones: a key of 11 significant bits,
// by which scaled weights are counted and looked up. A value beyond the largest half gets the key of the
// largest half, 65504.
inline std::uint16_t half_key(float value) {
  const std::uint32_t bits = as_bits(value);
  const std::uint32_t magnitude = std::min(bits & 0x7fffffffu, 0x477fe000u);
  const std::uint32_t rounded = ((magnitude + 0xfffu + ((magnitude >> 13) & 1u)) >> 13) - (112u << 10);
  return static_cast<std::uint16_t>(magnitude < 0x38800000u ? 0u : rounded | ((bits >> 16) & 0x8000u));
}

}  // namespace isotone
