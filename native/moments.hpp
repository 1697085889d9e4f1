#pragma once
#include <cstddef>

#include "float_format.hpp"

// Sums over stored weights, taken in 8 lanes of doubles, so that no digit depends on the instruction set.
namespace isotone {

// sums[0] = the sum of n weights; sums[1] = the sum of their squares.
void moments(const void* bits, Format format, std::size_t n, double* sums);

// The sum of the squared differences of two runs of n weights.
double squared_error(const void* a, const void* b, Format format, std::size_t n);

}  // namespace isotone
