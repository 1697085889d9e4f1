#pragma once
#include <cstddef>
#include <cstdint>

namespace isotone {

// How a stored weight is widened to float32 and a float32 value narrowed to it.
enum class Format : int { bf16 = 0, f16 = 1, f32 = 2 };

// float32 values of n stored weights.
void widen(const void* bits, Format format, std::size_t n, float* values);

// One half-step of balancing on whole rows. For each row: row[i] = mean_j sqrt|w_ij| * inverse[j],
// then column[j] += sqrt|w_ij| / row[i], rows of zeros left out. Row sums are taken in 16 lanes, so
// that the result does not depend on the instruction set. scratch: 2 * n_columns.
void balance(const void* bits, Format format, std::size_t n_rows, std::size_t n_columns,
             const float* inverse, float* row, double* column, float* scratch);

// sum w and sum w*w of n weights, in 8 lanes.
void moments(const void* bits, Format format, std::size_t n, double* sums);

// Weights divided by their factors, as half-precision patterns without subnormal ones: a key of 11
// significant bits for counting and labelling. position: of the first weight in its matrix.
// What lies beyond the largest half gets its key, 65504.
void divide(const void* bits, Format format, std::size_t n, std::size_t position, std::size_t n_columns,
            const float* inverse_row, const float* inverse_column, std::uint16_t* keys);

// codebook[rank] * row * column, each product rounded to float32, then narrowed to nearest even and
// never to infinity. scratch: 256 + n_columns.
void multiply(const std::uint8_t* ranks, std::size_t n, std::size_t position, std::size_t n_columns,
              const float* codebook, std::size_t k, const float* row, const float* column, Format format,
              void* out, float* scratch);

// sums[rank] += gradient * row * column over n weights: what a codebook's gradient is. Sums of a row are
// taken in float32, each in several lanes, those over rows in double. scratch: 4 * 256 + n_columns.
void sum_by_rank(const std::uint8_t* ranks, std::size_t n, std::size_t position, std::size_t n_columns,
                 const float* gradient, const float* row, const float* column, std::size_t k, double* sums,
                 float* scratch);

// The sum of squared differences, in 8 lanes of doubles.
double squared_error(const void* a, const void* b, Format format, std::size_t n);

}  // namespace isotone
