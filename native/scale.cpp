// Every loop over the weights of a matrix that has scales on its rows and columns. The loops are plain and
// work in blocks, so that the compiler vectorises them; sums are taken in a fixed number of lanes, so that
// no digit depends on the instruction set.
#include "scale.hpp"

#include <algorithm>
#include <cmath>

#include "float_bits.hpp"
#include "simd.hpp"

namespace isotone {
namespace {

// root[i] = sqrt|values[i]|; returns the sum of root[i] * inverse[i].
ISOTONE_CLONES
float roots(const float* values, std::size_t n, const float* inverse, float* root) {
  constexpr std::size_t lanes = 16;
  float sums[lanes] = {};
  std::size_t j = 0;
  for (std::size_t i = 0; i < n; ++i) root[i] = std::sqrt(std::fabs(values[i]));
  for (; j + lanes <= n; j += lanes)
    for (std::size_t l = 0; l < lanes; ++l) sums[l] += root[j + l] * inverse[j + l];
  for (std::size_t l = 0; j < n; ++j, ++l) sums[l] += root[j] * inverse[j];
  float sum = 0.0f;
  for (std::size_t l = 0; l < lanes; ++l) sum += sums[l];
  return sum;
}

ISOTONE_CLONES void add_scaled(const float* root, std::size_t n, float scale, float* column) {
  for (std::size_t j = 0; j < n; ++j) column[j] += root[j] * scale;
}

ISOTONE_CLONES
void keys_of(const float* values, std::size_t n, float inverse_row, const float* inverse_column,
             std::uint16_t* keys) {
  for (std::size_t j = 0; j < n; ++j) keys[j] = half_key(values[j] * inverse_row * inverse_column[j]);
}

ISOTONE_CLONES
void look_up(const std::uint8_t* ranks, std::size_t n, const float* table, const float* column,
             float* values) {
  for (std::size_t j = 0; j < n; ++j) values[j] = table[ranks[j]] * column[j];
}

ISOTONE_CLONES
void multiply_each(const float* a, const float* b, std::size_t n, float* products) {
  for (std::size_t j = 0; j < n; ++j) products[j] = a[j] * b[j];
}

// Calls f(offset, row, column, length) for each run of weights that lie in one row and are no more than a
// block.
template <typename F>
void for_runs(std::size_t n, std::size_t position, std::size_t n_columns, F f) {
  std::size_t row = position / n_columns, column = position % n_columns;
  for (std::size_t i = 0; i < n;) {
    const std::size_t length = std::min({n - i, n_columns - column, block_weights});
    f(i, row, column, length);
    i += length;
    column += length;
    if (column == n_columns) column = 0, ++row;
  }
}

#ifdef ISOTONE_X86
// The centroids stay in registers, 32 in a pair; one instruction looks 16 ranks up in a pair, and bits 5
// and 6 of the ranks choose between pairs.
template <int pairs>
__attribute__((target("avx512f,avx512bw"))) std::size_t look_up_avx512(const std::uint8_t* ranks,
                                                                       std::size_t n, const float* table,
                                                                       const float* column,
                                                                       float* values) {
  __m512 parts[2 * pairs];
  for (int p = 0; p < 2 * pairs; ++p) parts[p] = _mm512_loadu_ps(table + 16 * p);
  const __m512i bit5 = _mm512_set1_epi32(32), bit6 = _mm512_set1_epi32(64);
  std::size_t j = 0;
  for (; j + 16 <= n; j += 16) {
    const __m512i rank =
        _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(ranks + j)));
    __m512 found = _mm512_permutex2var_ps(parts[0], rank, parts[1]);
    if constexpr (pairs >= 2) {
      const __mmask16 odd = _mm512_test_epi32_mask(rank, bit5);
      found = _mm512_mask_blend_ps(odd, found, _mm512_permutex2var_ps(parts[2], rank, parts[3]));
      if constexpr (pairs == 4) {
        const __m512 low = _mm512_permutex2var_ps(parts[4], rank, parts[5]);
        const __m512 high = _mm512_permutex2var_ps(parts[6], rank, parts[7]);
        found = _mm512_mask_blend_ps(_mm512_test_epi32_mask(rank, bit6), found,
                                     _mm512_mask_blend_ps(odd, low, high));
      }
    }
    _mm512_storeu_ps(values + j, _mm512_mul_ps(found, _mm512_loadu_ps(column + j)));
  }
  return j;
}

std::size_t look_up_in_registers(const std::uint8_t* ranks, std::size_t n, const float* table, std::size_t k,
                                 const float* column, float* values) {
  if (k <= 32) return look_up_avx512<1>(ranks, n, table, column, values);
  if (k <= 64) return look_up_avx512<2>(ranks, n, table, column, values);
  if (k <= 128) return look_up_avx512<4>(ranks, n, table, column, values);
  return 0;
}

const bool has_avx512 = __builtin_cpu_supports("avx512bw");
#endif

}  // namespace

void balance(const void* bits, Format format, std::size_t n_rows, std::size_t n_columns,
             const float* inverse, float* row, double* column, float* scratch) {
  // The sums of columns are taken in float32 over a few rows at a time, and in double over those sums.
  constexpr std::size_t rows_a_flush = 64;
  float *values = scratch, *gathered = scratch + n_columns;
  for (std::size_t first = 0; first < n_rows; first += rows_a_flush) {
    const std::size_t last = std::min(first + rows_a_flush, n_rows);
    std::fill(gathered, gathered + n_columns, 0.0f);
    for (std::size_t i = first; i < last; ++i) {
      upcast(at(bits, format, i * n_columns), format, n_columns, values);
      row[i] = roots(values, n_columns, inverse, values) / static_cast<float>(n_columns);
      if (row[i] > 0.0f) add_scaled(values, n_columns, 1.0f / row[i], gathered);
    }
    for (std::size_t j = 0; j < n_columns; ++j) column[j] += gathered[j];
  }
}

void divide(const void* bits, Format format, std::size_t n, std::size_t position, std::size_t n_columns,
            const float* inverse_row, const float* inverse_column, std::uint16_t* keys) {
  float values[block_weights];
  for_runs(n, position, n_columns, [&](std::size_t i, std::size_t row, std::size_t column, std::size_t length) {
    upcast(at(bits, format, i), format, length, values);
    keys_of(values, length, inverse_row[row], inverse_column + column, keys + i);
  });
}

void multiply(const std::uint8_t* ranks, std::size_t n, std::size_t position, std::size_t n_columns,
              const float* codebook, std::size_t k, const float* row, const float* column, Format format,
              void* out, float* scratch) {
  float *table = scratch, *values = scratch + 256;
  std::size_t current = static_cast<std::size_t>(-1);
  for_runs(n, position, n_columns, [&](std::size_t i, std::size_t r, std::size_t c, std::size_t length) {
    if (r != current)
      for (std::size_t s = 0; s < k; ++s) table[s] = codebook[s] * row[r];
    current = r;
    std::size_t done = 0;
#ifdef ISOTONE_X86
    if (has_avx512) done = look_up_in_registers(ranks + i, length, table, k, column + c, values);
#endif
    look_up(ranks + i + done, length - done, table, column + c + done, values + done);
    downcast(values, length, format, out, i);
  });
}

void sum_by_rank(const std::uint8_t* ranks, std::size_t n, std::size_t position, std::size_t n_columns,
                 const float* gradient, const float* row, const float* column, std::size_t k, double* sums,
                 float* scratch) {
  // Neighbouring weights often have the same rank, and an addition waits for the addition before it to the
  // same sum; several lanes of sums avoid that.
  constexpr std::size_t lanes = 4;
  float *partial = scratch, *values = scratch + lanes * 256;
  for_runs(n, position, n_columns, [&](std::size_t i, std::size_t r, std::size_t c, std::size_t length) {
    multiply_each(gradient + i, column + c, length, values);
    for (std::size_t lane = 0; lane < lanes; ++lane) std::fill_n(partial + lane * 256, k, 0.0f);
    std::size_t j = 0;
    for (; j + lanes <= length; j += lanes)
      for (std::size_t lane = 0; lane < lanes; ++lane)
        partial[lane * 256 + ranks[i + j + lane]] += values[j + lane];
    for (; j < length; ++j) partial[ranks[i + j]] += values[j];
    for (std::size_t s = 0; s < k; ++s) {
      const double sum = double{partial[s]} + partial[256 + s] + partial[512 + s] + partial[768 + s];
      sums[s] += sum * row[r];
    }
  });
}

}  // namespace isotone
