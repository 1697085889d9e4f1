#pragma once
#include <cstddef>
#include <cstdint>

namespace isotone {

// Globally optimal weighted 1-D k-means by dynamic programming.
//
// values: ascending and distinct. weights: positive. 2 <= k < n. Writes k + 1 borders: cluster c holds the
// values borders[c] <= i < borders[c + 1], and none is empty.
void solve(const double* values, const double* weights, std::size_t n, std::size_t k,
           std::int64_t* borders);

}  // namespace isotone
