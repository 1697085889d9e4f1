#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace isotone {

// What a partition of points costs, in units of squared error.
struct Prices {
  double bit;              // of one bit of coded rank
  double centroid;         // of one more centroid
  double protected_weight; // of a weight that is stored exactly; infinite: none is
};

// The cheapest partition of points into runs, each a cluster or protected: exact, O(n^2).
//
// values ascending, weights positive. labels[i]: the number of the cluster, or -1 for protected.
void partition(const double* values, const double* weights, std::size_t n, const Prices& prices,
               std::int32_t* labels);

// Centroids and code lengths in turn, each the best for the other, until the cost stays: a local
// optimum that costs no more than the partition it starts from. labels: in and out, as above.
// Returns the cost.
double settle(const double* values, const double* weights, std::size_t n, const Prices& prices,
              std::int32_t* labels);

}  // namespace isotone
