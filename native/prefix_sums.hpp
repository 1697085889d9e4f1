#pragma once
#include <cstddef>
#include <vector>

namespace isotone {

// Prefix sums of w, w*x and w*x*x over weighted values, [n + 1] each, from which the weight, the mean and
// the squared error of any run of values follow in O(1).
//
// The sums start at the weighted median and run outwards, and x is measured from the median. The far tails
// come last, so an outlier of any size leaves the sums of the bulk untouched.
struct PrefixSums {
  std::vector<double> weight, first, second;

  PrefixSums(const double* values, const double* weights, std::size_t n)
      : weight(n + 1), first(n + 1), second(n + 1) {
    double total = 0.0;
    for (std::size_t i = 0; i < n; ++i) total += weights[i];
    std::size_t median = 0;
    for (double seen = weights[0]; seen < total / 2 && median + 1 < n;) seen += weights[++median];
    const auto add = [&](std::size_t to, std::size_t from, std::size_t i, double sign) {
      const double x = values[i] - values[median], w = sign * weights[i];
      weight[to] = weight[from] + w;
      first[to] = first[from] + w * x;
      second[to] = second[from] + w * x * x;
    };
    for (std::size_t i = median; i < n; ++i) add(i + 1, i, i, 1.0);
    for (std::size_t i = median; i > 0; --i) add(i - 1, i, i - 1, -1.0);
  }

  double total() const { return weight.back() - weight.front(); }
};

}  // namespace isotone
