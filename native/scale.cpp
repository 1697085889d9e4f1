// Everything that touches each weight of a matrix with factors on its rows and columns. Loops are
// plain and in blocks, so that the compiler vectorises them; sums are taken in a fixed number of
// lanes, so that no digit depends on the instruction set.
#include "scale.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "half_key.hpp"
#include "simd.hpp"

namespace isotone {
namespace {

constexpr std::size_t block = 2048;  // weights that are widened at a time; stays in the first cache

inline float as_float(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline std::uint32_t as_bits(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

// Half to float: the exponent moved over, and the bias put right by an exact product, which also
// brings subnormal ones into place (Giesen, "half_to_float_fast").
inline float widen_half(std::uint16_t bits) {
  const std::uint32_t shifted = (bits & 0x7fffu) << 13;
  const float magnitude = as_float(shifted) * 0x1p112f;
  // Infinity and NaN keep their mantissa under the largest exponent.
  const std::uint32_t wide = shifted >= 0x0f800000u ? shifted | 0x7f800000u : as_bits(magnitude);
  return as_float(wide | ((bits & 0x8000u) << 16));
}

inline std::uint16_t narrow_half(float value) {
  const std::uint32_t bits = as_bits(value);
  const std::uint32_t magnitude = std::min(bits & 0x7fffffffu, 0x477fe000u);  // 65504
  const std::uint32_t normal = ((magnitude + 0xfffu + ((magnitude >> 13) & 1u)) >> 13) - (112u << 10);
  // Below 2^-14 the grid is even: adding 0.5, whose last place is 2^-24, rounds to it.
  const std::uint32_t small = as_bits(as_float(magnitude) + 0.5f) - 0x3f000000u;
  const std::uint32_t rounded = magnitude < 0x38800000u ? small : normal;
  return static_cast<std::uint16_t>(rounded | ((bits >> 16) & 0x8000u));
}

inline std::uint16_t narrow_bf16(float value) {
  const std::uint32_t bits = as_bits(value);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const std::uint32_t largest = 0x7f7fu | ((bits >> 16) & 0x8000u);
  return static_cast<std::uint16_t>((rounded & 0x7f80u) == 0x7f80u ? largest : rounded);
}

ISOTONE_CLONES void widen_bf16(const std::uint16_t* bits, std::size_t n, float* values) {
  for (std::size_t i = 0; i < n; ++i) values[i] = as_float(std::uint32_t{bits[i]} << 16);
}
ISOTONE_CLONES void widen_f16(const std::uint16_t* bits, std::size_t n, float* values) {
  for (std::size_t i = 0; i < n; ++i) values[i] = widen_half(bits[i]);
}
ISOTONE_CLONES void narrow_to_bf16(const float* values, std::size_t n, std::uint16_t* bits) {
  for (std::size_t i = 0; i < n; ++i) bits[i] = narrow_bf16(values[i]);
}
ISOTONE_CLONES void narrow_to_f16(const float* values, std::size_t n, std::uint16_t* bits) {
  for (std::size_t i = 0; i < n; ++i) bits[i] = narrow_half(values[i]);
}

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

ISOTONE_CLONES void add_scaled(const float* root, std::size_t n, float factor, float* column) {
  for (std::size_t j = 0; j < n; ++j) column[j] += root[j] * factor;
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

inline std::size_t width(Format format) { return format == Format::f32 ? 4 : 2; }

inline const std::uint8_t* at(const void* bits, Format format, std::size_t i) {
  return static_cast<const std::uint8_t*>(bits) + i * width(format);
}

// Runs of weights that lie in one row and are no longer than a block: f(offset, row, column, length).
template <typename F>
void for_runs(std::size_t n, std::size_t position, std::size_t n_columns, F f) {
  std::size_t row = position / n_columns, column = position % n_columns;
  for (std::size_t i = 0; i < n;) {
    const std::size_t length = std::min({n - i, n_columns - column, block});
    f(i, row, column, length);
    i += length;
    column += length;
    if (column == n_columns) column = 0, ++row;
  }
}

#ifdef ISOTONE_X86
// Centroids stay in registers, 32 to a pair; one instruction looks 16 ranks up in a pair, and bits 5
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

void widen(const void* bits, Format format, std::size_t n, float* values) {
  if (format == Format::bf16)
    widen_bf16(static_cast<const std::uint16_t*>(bits), n, values);
  else if (format == Format::f16)
    widen_f16(static_cast<const std::uint16_t*>(bits), n, values);
  else
    std::memcpy(values, bits, 4 * n);
}

void balance(const void* bits, Format format, std::size_t n_rows, std::size_t n_columns,
             const float* inverse, float* row, double* column, float* scratch) {
  // Columns gather in float32 for a few rows at a time, and in double over all of them.
  constexpr std::size_t rows_a_flush = 64;
  float *values = scratch, *gathered = scratch + n_columns;
  for (std::size_t first = 0; first < n_rows; first += rows_a_flush) {
    const std::size_t last = std::min(first + rows_a_flush, n_rows);
    std::fill(gathered, gathered + n_columns, 0.0f);
    for (std::size_t i = first; i < last; ++i) {
      widen(at(bits, format, i * n_columns), format, n_columns, values);
      row[i] = roots(values, n_columns, inverse, values) / static_cast<float>(n_columns);
      if (row[i] > 0.0f) add_scaled(values, n_columns, 1.0f / row[i], gathered);
    }
    for (std::size_t j = 0; j < n_columns; ++j) column[j] += gathered[j];
  }
}

void moments(const void* bits, Format format, std::size_t n, double* sums) {
  float values[block];
  double first[8] = {}, second[8] = {};
  for (std::size_t i = 0; i < n; i += block) {
    const std::size_t length = std::min(n - i, block);
    widen(at(bits, format, i), format, length, values);
    add_moments(values, length, first, second);
  }
  sums[0] = total(first);
  sums[1] = total(second);
}

void divide(const void* bits, Format format, std::size_t n, std::size_t position, std::size_t n_columns,
            const float* inverse_row, const float* inverse_column, std::uint16_t* keys) {
  float values[block];
  for_runs(n, position, n_columns, [&](std::size_t i, std::size_t row, std::size_t column, std::size_t length) {
    widen(at(bits, format, i), format, length, values);
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
    if (format == Format::bf16)
      narrow_to_bf16(values, length, static_cast<std::uint16_t*>(out) + i);
    else if (format == Format::f16)
      narrow_to_f16(values, length, static_cast<std::uint16_t*>(out) + i);
    else
      std::memcpy(static_cast<float*>(out) + i, values, 4 * length);
  });
}

void sum_by_rank(const std::uint8_t* ranks, std::size_t n, std::size_t position, std::size_t n_columns,
                 const float* gradient, const float* row, const float* column, std::size_t k, double* sums,
                 float* scratch) {
  // Neighbours often have one rank, and an addition waits for the one before it into the same sum.
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

double squared_error(const void* a, const void* b, Format format, std::size_t n) {
  float left[block], right[block];
  double lanes[8] = {};
  for (std::size_t i = 0; i < n; i += block) {
    const std::size_t length = std::min(n - i, block);
    widen(at(a, format, i), format, length, left);
    widen(at(b, format, i), format, length, right);
    add_squares(left, right, length, lanes);
  }
  return total(lanes);
}

}  // namespace isotone
