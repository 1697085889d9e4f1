#include "moments.hpp"

#include <algorithm>

#include "simd.hpp"

namespace isotone {
namespace {

ISOTONE_CLONES
void add_squares(const float* a, const float* b, std::size_t n, double* lanes) {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (std::size_t l = 0; l < 8; ++l) {
      const double d = static_cast<double>(a[i + l]) - static_cast<double>(b[i + l]);
      lanes[l] += d * d;
    }
  for (std::size_t l = 0; i < n; ++i, ++l) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    lanes[l] += d * d;
  }
}

ISOTONE_CLONES
void add_moments(const float* values, std::size_t n, double* first, double* second) {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (std::size_t l = 0; l < 8; ++l) {
      const double x = values[i + l];
      first[l] += x;
      second[l] += x * x;
    }
  for (std::size_t l = 0; i < n; ++i, ++l) {
    const double x = values[i];
    first[l] += x;
    second[l] += x * x;
  }
}

double total(const double* lanes) {
  double sum = 0.0;
  for (std::size_t l = 0; l < 8; ++l) sum += lanes[l];
  return sum;
}

}  // namespace

void moments(const void* bits, Format format, std::size_t n, double* sums) {
  float values[block_weights];
  double first[8] = {}, second[8] = {};
  for (std::size_t i = 0; i < n; i += block_weights) {
    const std::size_t length = std::min(n - i, block_weights);
    upcast(at(bits, format, i), format, length, values);
    add_moments(values, length, first, second);
  }
  sums[0] = total(first);
  sums[1] = total(second);
}

double squared_error(const void* a, const void* b, Format format, std::size_t n) {
  float left[block_weights], right[block_weights];
  double lanes[8] = {};
  for (std::size_t i = 0; i < n; i += block_weights) {
    const std::size_t length = std::min(n - i, block_weights);
    upcast(at(a, format, i), format, length, left);
    upcast(at(b, format, i), format, length, right);
    add_squares(left, right, length, lanes);
  }
  return total(lanes);
}

}  // namespace isotone
