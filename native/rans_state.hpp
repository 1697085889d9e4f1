#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "rans.hpp"

// What the encoder and the decoder of rANS share: the state between symbols, and the byte order.
namespace isotone {

constexpr std::uint32_t rans_lower_bound = 1u << 16;  // of a state between two symbols

inline void put16(std::uint8_t* at, std::uint32_t x) {
  const std::uint8_t bytes[2] = {static_cast<std::uint8_t>(x), static_cast<std::uint8_t>(x >> 8)};
  std::memcpy(at, bytes, 2);
}
inline void put32(std::uint8_t* at, std::uint32_t x) {
  put16(at, x);
  put16(at + 2, x >> 16);
}
inline std::uint32_t get16(const std::uint8_t* at) { return at[0] | (std::uint32_t{at[1]} << 8); }
inline std::uint32_t get32(const std::uint8_t* at) { return get16(at) | (get16(at + 2) << 16); }

// The bytes of a chunk before its words: the frequency of each of k symbols, and the states.
constexpr std::size_t rans_head_bytes(std::size_t k) { return rans_symbol_bytes * k + rans_state_bytes; }

}  // namespace isotone
