#pragma once
#include <cstddef>
#include <cstdint>

// The formats of stored weights, and how they are upcast to float32 and downcast from it.
namespace isotone {

enum class Format : int { bf16 = 0, f16 = 1, f32 = 2 };

// The stored weights that a loop upcasts at a time: few enough to stay in the first-level cache.
constexpr std::size_t block_weights = 2048;

// The address of stored weight i.
inline const std::uint8_t* at(const void* bits, Format format, std::size_t i) {
  return static_cast<const std::uint8_t*>(bits) + i * (format == Format::f32 ? 4 : 2);
}

// The float32 values of n stored weights; exact.
void upcast(const void* bits, Format format, std::size_t n, float* values);

// Rounds n float32 values to stored weights, to nearest even and never to infinity. `out` is the address
// of the first of all stored weights; the n weights begin at weight `first`.
void downcast(const float* values, std::size_t n, Format format, void* out, std::size_t first);

}  // namespace isotone
