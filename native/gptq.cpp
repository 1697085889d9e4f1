// Rounding with error feedback (Frantar et al., "GPTQ", arXiv 2210.17323). Rows are independent of each
// other. Within a block of columns an error is fed back at once; the columns beyond the block get the
// errors of the whole block as the product of two small matrices. The sums and their order are the same on
// every instruction set.
#include "gptq.hpp"

#include <algorithm>

#include "assign.hpp"
#include "float_bits.hpp"
#include "simd.hpp"

namespace isotone {
namespace {

constexpr std::size_t tile = 32;    // rows that share what is read of the factor
constexpr std::size_t block = 64;   // columns whose errors are gathered before they are fed back further
constexpr std::size_t group = 4;    // rows whose sums stay in registers
constexpr std::size_t lanes = 16;

typedef float Lanes __attribute__((vector_size(4 * lanes), aligned(4), may_alias));

// values[r, t] -= sum_j errors[r, j] * factor[j, t] for `group` rows and n columns t.
ISOTONE_CLONES
void subtract_product(float* values, std::size_t stride, const float* errors, const float* factor,
                      std::size_t n_block, std::size_t n) {
  std::size_t t = 0;
  for (; t + 2 * lanes <= n; t += 2 * lanes) {
    Lanes sums[2 * group] = {};
    for (std::size_t j = 0; j < n_block; ++j) {
      const Lanes low = *reinterpret_cast<const Lanes*>(factor + j * stride + t);
      const Lanes high = *reinterpret_cast<const Lanes*>(factor + j * stride + t + lanes);
      for (std::size_t r = 0; r < group; ++r) {
        sums[2 * r] += errors[r * block + j] * low;
        sums[2 * r + 1] += errors[r * block + j] * high;
      }
    }
    for (std::size_t r = 0; r < group; ++r) {
      *reinterpret_cast<Lanes*>(values + r * stride + t) -= sums[2 * r];
      *reinterpret_cast<Lanes*>(values + r * stride + t + lanes) -= sums[2 * r + 1];
    }
  }
  for (; t < n; ++t)
    for (std::size_t r = 0; r < group; ++r) {
      float sum = 0.0f;
      for (std::size_t j = 0; j < n_block; ++j) sum += errors[r * block + j] * factor[j * stride + t];
      values[r * stride + t] -= sum;
    }
}

ISOTONE_CLONES void subtract_scaled(float* values, float error, const float* factor, std::size_t n) {
  for (std::size_t t = 0; t < n; ++t) values[t] -= error * factor[t];
}

}  // namespace

std::vector<std::int64_t> round_with_feedback(const float* weights, std::size_t n_rows,
                                              std::size_t n_columns, const float* factor,
                                              const std::uint16_t* labels, const float* codebook,
                                              std::uint8_t* ranks) {
  std::vector<std::int64_t> positions;
  std::vector<float> errors(tile * block), values(tile * n_columns);
  for (std::size_t top = 0; top < n_rows; top += tile) {
    const std::size_t height = std::min(tile, n_rows - top);
    // The last tile is filled up with rows of zeros, whose errors are 0, so that they stay zeros.
    std::fill(values.begin(), values.end(), 0.0f);
    std::copy_n(weights + top * n_columns, height * n_columns, values.begin());
    for (std::size_t first = 0; first < n_columns; first += block) {
      const std::size_t last = std::min(first + block, n_columns);
      std::fill(errors.begin(), errors.end(), 0.0f);
      for (std::size_t r = 0; r < height; ++r) {
        const std::size_t start = (top + r) * n_columns;
        float* row = &values[r * n_columns];
        for (std::size_t j = first; j < last; ++j) {
          const std::uint16_t label = labels[half_key(row[j])];
          ranks[start + j] = static_cast<std::uint8_t>(label);
          float restored = codebook[ranks[start + j]];
          if (label & protected_bit) {
            positions.push_back(static_cast<std::int64_t>(start + j));
            restored = weights[start + j];
          }
          const float error = row[j] - restored;
          errors[r * block + j - first] = error;
          subtract_scaled(row + j + 1, error, factor + j * n_columns + j + 1, last - j - 1);
        }
      }
      for (std::size_t r = 0; r < height && last < n_columns; r += group)
        subtract_product(&values[r * n_columns + last], n_columns, &errors[r * block],
                         factor + first * n_columns + last, last - first, n_columns - last);
    }
  }
  std::sort(positions.begin(), positions.end());
  return positions;
}

}  // namespace isotone
