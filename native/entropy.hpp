#pragma once
#include <cstddef>
#include <cstdint>

namespace isotone {

// What a partition costs beside its squared error, in units of squared error: lambda, the Lagrange
// multiplier, times the bits.
struct BitCosts {
  double bit;               // one bit of a coded rank
  double centroid;          // one more centroid
  double protected_weight;  // one weight that is stored exactly; infinite if none may be
};

// The cheapest partition of sorted values into runs, each a cluster or protected; exact, in O(n^2).
//
// values: ascending. weights: positive. labels[i]: the number of the cluster of value i, or -1 if it is
// protected.
void partition(const double* values, const double* weights, std::size_t n, const BitCosts& costs,
               std::int32_t* labels);

// Generalised Lloyd iterations: centroids and code lengths are updated in turn, each the best for the
// other, until the cost stays. The result is a local optimum that costs no more than the partition it
// starts from. labels: in and out, as above. Returns the cost.
double lloyd_iterations(const double* values, const double* weights, std::size_t n, const BitCosts& costs,
                        std::int32_t* labels);

}  // namespace isotone
