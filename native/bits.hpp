#pragma once
#include <cstddef>
#include <cstdint>

namespace isotone {

// Packs ranks in `width` bits each, least significant bit first, with no padding but in the last byte.
void pack(const std::uint8_t* ranks, std::size_t n, unsigned width, std::uint8_t* out);

// Unpacks n ranks; reads ceil(n * width / 8) bytes.
void unpack(const std::uint8_t* in, std::size_t n, unsigned width, std::uint8_t* ranks);

}  // namespace isotone
