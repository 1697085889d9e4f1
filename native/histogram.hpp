#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace isotone {

// A float32 pattern as an integer, in the order of the values; -0 and 0 give the same one.
inline std::uint32_t order_key(std::uint32_t bits) {
  if (bits == 0x80000000u) bits = 0;
  return bits ^ (bits & 0x80000000u ? 0xffffffffu : 0x80000000u);
}

// Adds the number of weights with each bit pattern to counts[65536].
void count_patterns(const std::uint16_t* bits, std::size_t n, std::uint64_t* counts);

// Counts how often each float32 value occurs, as long as few distinct values do: an open hash table.
class DistinctCounter {
 public:
  explicit DistinctCounter(std::size_t limit);
  // Returns false, and the counter is of no more use, once more than `limit` distinct values were seen.
  bool add(const std::uint32_t* bits, std::size_t n);
  // Returns (order key, count), ascending.
  std::vector<std::pair<std::uint32_t, std::uint64_t>> sorted() const;

 private:
  void grow();
  std::size_t limit_, size_ = 0;
  std::vector<std::uint32_t> keys_;
  std::vector<std::uint64_t> counts_;  // 0 if the slot is free
};

// A bin holds the values whose order keys share their top 20 bits.
constexpr unsigned bin_key_bits = 12;
constexpr std::uint32_t bin_keys = 1u << bin_key_bits;

// Counts float32 values in 2^20 bins. Adds, for each bin, the number of weights, and the sum and the sum of
// squares of their distances from the bin's end nearest to zero.
void count_bins(const std::uint32_t* bits, std::size_t n, std::uint64_t* counts, double* sums,
                double* squares);

// Counts each single value of chosen bins: slot[2^20] is the row of the bin in counts[rows][4096], or -1.
void count_within_bins(const std::uint32_t* bits, std::size_t n, const std::int32_t* slot,
                       std::uint64_t* counts);

// The number of NaN and infinite values.
std::size_t count_not_finite(const std::uint32_t* bits, std::size_t n);

}  // namespace isotone
