#pragma once
#include <cstddef>
#include <cstdint>

// Range asymmetric numeral systems (Duda, arXiv 1311.2540), the word-wise variant of Giesen's ryg_rans
// (arXiv 1402.3392): 32-bit states, 16-bit words, probabilities in 1/4096. 32 coders take the symbols in
// turn, so that a decoder can run them in vector lanes; each state needs at most one word per symbol.
// rANS was chosen over Huffman because it saves 0.02 to 0.06 bit a weight; zstd's Huffman stage decodes up
// to twice as fast (benchmarks/coders.py). The layout of a chunk is specified in docs/format.md.
namespace isotone {

constexpr unsigned rans_scale_bits = 12;
constexpr std::uint32_t rans_slots = 1u << rans_scale_bits;  // the sum of the frequencies of a chunk
constexpr std::size_t rans_lanes = 32;                       // coders that take the symbols in turn
constexpr std::size_t rans_state_bytes = 4 * rans_lanes;     // their final states, in each chunk
constexpr std::size_t rans_symbol_bytes = 2;                 // the frequency of a symbol, in each chunk

// Encodes one chunk of ranks below k. Returns the number of bytes written, or 0 if the chunk does not
// fit in `capacity` bytes.
std::size_t rans_encode(const std::uint8_t* ranks, std::size_t n, std::size_t k, std::uint8_t* out,
                        std::size_t capacity);

// Decodes one chunk. Returns false for any input that rans_encode cannot have written. Never reads
// outside of [in, in + size) and never writes outside of [ranks, ranks + n).
bool rans_decode(const std::uint8_t* in, std::size_t size, std::size_t k, std::uint8_t* ranks,
                 std::size_t n);

}  // namespace isotone
