#pragma once
#include <cstddef>
#include <cstdint>

namespace isotone {

// One chunk of ranks, coded by 32 interleaved rANS coders. Layout: docs/format.md.
//
// Returns the number of bytes written, or 0 where the chunk would not fit in capacity.
std::size_t rans_encode(const std::uint8_t* ranks, std::size_t n, std::size_t k, std::uint8_t* out,
                        std::size_t capacity);

// Returns false for any input that rans_encode cannot have written. Never reads outside of
// [in, in + size) nor writes outside of [ranks, ranks + n).
bool rans_decode(const std::uint8_t* in, std::size_t size, std::size_t k, std::uint8_t* ranks,
                 std::size_t n);

}  // namespace isotone
