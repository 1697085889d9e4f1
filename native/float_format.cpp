#include "float_format.hpp"

#include <cstring>

#include "float_bits.hpp"
#include "simd.hpp"

namespace isotone {
namespace {

// Half to float: the exponent is moved over, and an exact product corrects its bias, which also brings
// subnormal values into place (Giesen, "half_to_float_fast").
inline float upcast_half(std::uint16_t bits) {
  const std::uint32_t shifted = (bits & 0x7fffu) << 13;
  const float magnitude = as_float(shifted) * 0x1p112f;
  // Infinity and NaN keep their mantissa under the largest exponent.
  const std::uint32_t wide = shifted >= 0x0f800000u ? shifted | 0x7f800000u : as_bits(magnitude);
  return as_float(wide | ((bits & 0x8000u) << 16));
}

inline std::uint16_t downcast_half(float value) {
  const std::uint32_t bits = as_bits(value);
  const std::uint32_t magnitude = std::min(bits & 0x7fffffffu, 0x477fe000u);  // 65504
  const std::uint32_t normal = ((magnitude + 0xfffu + ((magnitude >> 13) & 1u)) >> 13) - (112u << 10);
  // Below 2^-14 the values are evenly spaced: adding 0.5, whose last place is 2^-24, rounds to them.
  const std::uint32_t small = as_bits(as_float(magnitude) + 0.5f) - 0x3f000000u;
  const std::uint32_t rounded = magnitude < 0x38800000u ? small : normal;
  return static_cast<std::uint16_t>(rounded | ((bits >> 16) & 0x8000u));
}

inline std::uint16_t downcast_bf16(float value) {
  const std::uint32_t bits = as_bits(value);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const std::uint32_t largest = 0x7f7fu | ((bits >> 16) & 0x8000u);
  return static_cast<std::uint16_t>((rounded & 0x7f80u) == 0x7f80u ? largest : rounded);
}

ISOTONE_CLONES void upcast_bf16(const std::uint16_t* bits, std::size_t n, float* values) {
  for (std::size_t i = 0; i < n; ++i) values[i] = as_float(std::uint32_t{bits[i]} << 16);
}
ISOTONE_CLONES void upcast_f16(const std::uint16_t* bits, std::size_t n, float* values) {
  for (std::size_t i = 0; i < n; ++i) values[i] = upcast_half(bits[i]);
}
ISOTONE_CLONES void downcast_to_bf16(const float* values, std::size_t n, std::uint16_t* bits) {
  for (std::size_t i = 0; i < n; ++i) bits[i] = downcast_bf16(values[i]);
}
ISOTONE_CLONES void downcast_to_f16(const float* values, std::size_t n, std::uint16_t* bits) {
  for (std::size_t i = 0; i < n; ++i) bits[i] = downcast_half(values[i]);
}

}  // namespace

void upcast(const void* bits, Format format, std::size_t n, float* values) {
  if (format == Format::bf16)
    upcast_bf16(static_cast<const std::uint16_t*>(bits), n, values);
  else if (format == Format::f16)
    upcast_f16(static_cast<const std::uint16_t*>(bits), n, values);
  else
    std::memcpy(values, bits, 4 * n);
}

void downcast(const float* values, std::size_t n, Format format, void* out, std::size_t first) {
  if (format == Format::bf16)
    downcast_to_bf16(values, n, static_cast<std::uint16_t*>(out) + first);
  else if (format == Format::f16)
    downcast_to_f16(values, n, static_cast<std::uint16_t*>(out) + first);
  else
    std::memcpy(static_cast<float*>(out) + first, values, 4 * n);
}

}  // namespace isotone
