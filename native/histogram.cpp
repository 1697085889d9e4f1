#include "histogram.hpp"

#include <algorithm>

#include "float_bits.hpp"
#include "simd.hpp"

namespace isotone {

void count_patterns(const std::uint16_t* bits, std::size_t n, std::uint64_t* counts) {
  // There are four tables, so that a run of equal weights does not wait for its own last increment. They
  // are 32-bit, so that they stay in the second-level cache, and are emptied before an entry could overflow.
  constexpr std::size_t patterns = 65536, longest = std::size_t{1} << 31;
  std::vector<std::uint32_t> table(4 * patterns);
  while (n > 0) {
    const std::size_t part = std::min(n, longest);
    std::size_t i = 0;
    for (; i + 4 <= part; i += 4)
      for (std::size_t t = 0; t < 4; ++t) ++table[t * patterns + bits[i + t]];
    for (; i < part; ++i) ++table[bits[i]];
    for (std::size_t t = 0; t < 4; ++t)
      for (std::size_t p = 0; p < patterns; ++p) counts[p] += table[t * patterns + p];
    std::fill(table.begin(), table.end(), 0u);
    bits += part;
    n -= part;
  }
}

DistinctCounter::DistinctCounter(std::size_t limit) : limit_(limit), keys_(1 << 12), counts_(1 << 12) {}

void DistinctCounter::grow() {
  std::vector<std::uint32_t> keys(2 * keys_.size());
  std::vector<std::uint64_t> counts(keys.size());
  keys.swap(keys_);
  counts.swap(counts_);
  const std::size_t mask = keys_.size() - 1;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (counts[i] == 0) continue;
    std::size_t at = (keys[i] * 0x9e3779b97f4a7c15ull >> 32) & mask;
    while (counts_[at]) at = (at + 1) & mask;
    keys_[at] = keys[i];
    counts_[at] = counts[i];
  }
}

bool DistinctCounter::add(const std::uint32_t* bits, std::size_t n) {
  std::size_t mask = keys_.size() - 1;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t key = order_key(bits[i]);
    std::size_t at = (key * 0x9e3779b97f4a7c15ull >> 32) & mask;
    while (counts_[at] && keys_[at] != key) at = (at + 1) & mask;
    if (counts_[at]++ == 0) {
      keys_[at] = key;
      if (++size_ > limit_) return false;
      if (2 * size_ > keys_.size()) {
        grow();
        mask = keys_.size() - 1;
      }
    }
  }
  return true;
}

std::vector<std::pair<std::uint32_t, std::uint64_t>> DistinctCounter::sorted() const {
  std::vector<std::pair<std::uint32_t, std::uint64_t>> found;
  found.reserve(size_);
  for (std::size_t i = 0; i < keys_.size(); ++i)
    if (counts_[i]) found.emplace_back(keys_[i], counts_[i]);
  std::sort(found.begin(), found.end());
  return found;
}

void count_bins(const std::uint32_t* bits, std::size_t n, std::uint64_t* counts, double* sums,
                double* squares) {
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t bin = order_key(bits[i]) >> bin_key_bits;
    const double magnitude = as_float(bits[i] & 0x7fffffffu);
    const double end = as_float(bits[i] & 0x7fffffffu & ~(bin_keys - 1));
    const double distance = magnitude - end;  // exact
    ++counts[bin];
    sums[bin] += distance;
    squares[bin] += distance * distance;
  }
}

void count_within_bins(const std::uint32_t* bits, std::size_t n, const std::int32_t* slot,
                       std::uint64_t* counts) {
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t key = order_key(bits[i]);
    const std::int32_t row = slot[key >> bin_key_bits];
    if (row >= 0) ++counts[static_cast<std::size_t>(row) * bin_keys + (key & (bin_keys - 1))];
  }
}

ISOTONE_CLONES
std::size_t count_not_finite(const std::uint32_t* bits, std::size_t n) {
  std::size_t found = 0;
  for (std::size_t i = 0; i < n; ++i) found += (bits[i] & 0x7f800000u) == 0x7f800000u;
  return found;
}

}  // namespace isotone
