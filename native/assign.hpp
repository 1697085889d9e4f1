#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace isotone {

// A label is a rank (its low byte) and whether the weight is protected (bit 8).
constexpr std::uint16_t protected_bit = 256;

// Looks up the ranks of 16-bit weights: labels[65536] by bit pattern. Returns the positions of the
// protected weights.
std::vector<std::int64_t> assign16(const std::uint16_t* bits, std::size_t n, const std::uint16_t* labels,
                                   std::uint8_t* ranks);

// Looks up the ranks of float32 weights: segment s holds the order keys starts[s] <= key < starts[s + 1],
// and starts[0] = 0; cell[65536] is the segment of the first key with the same top 16 bits.
std::vector<std::int64_t> assign32(const std::uint32_t* bits, std::size_t n, const std::uint32_t* cell,
                                   const std::uint32_t* starts, std::size_t n_segments,
                                   const std::uint16_t* labels, std::uint8_t* ranks);

// out[i] = table[ranks[i]]: ranks to weights.
void gather16(const std::uint8_t* ranks, std::size_t n, const std::uint16_t* table, std::size_t k,
              std::uint16_t* out);
void gather32(const std::uint8_t* ranks, std::size_t n, const std::uint32_t* table, std::uint32_t* out);

}  // namespace isotone
