#pragma once
#include <cstddef>
#include <cstdint>

#include "float_format.hpp"

// Balancing, dividing and restoring a matrix that has scales on its rows and columns.
namespace isotone {

// One half-step of balancing on whole rows. For each row, row[i] = mean_j sqrt|w_ij| * inverse[j]; then
// column[j] += sqrt|w_ij| / row[i], except for rows of zeros. Row sums are taken in 16 lanes, so that the
// result does not depend on the instruction set. scratch: 2 * n_columns.
void balance(const void* bits, Format format, std::size_t n_rows, std::size_t n_columns,
             const float* inverse, float* row, double* column, float* scratch);

// Weights divided by their scales, as keys (see half_key). position: of the first weight in its matrix.
void divide(const void* bits, Format format, std::size_t n, std::size_t position, std::size_t n_columns,
            const float* inverse_row, const float* inverse_column, std::uint16_t* keys);

// codebook[rank] * row * column, each product rounded to float32, then downcast to the nearest, ties to
// even, never to infinity. scratch: 256 + n_columns.
void multiply(const std::uint8_t* ranks, std::size_t n, std::size_t position, std::size_t n_columns,
              const float* codebook, std::size_t k, const float* row, const float* column, Format format,
              void* out, float* scratch);

// sums[rank] += gradient * row * column over n weights, which is the gradient of a codebook. Sums of a row
// are taken in float32, each in several lanes; sums over rows are taken in double.
// scratch: 4 * 256 + n_columns.
void sum_by_rank(const std::uint8_t* ranks, std::size_t n, std::size_t position, std::size_t n_columns,
                 const float* gradient, const float* row, const float* column, std::size_t k, double* sums,
                 float* scratch);

}  // namespace isotone
