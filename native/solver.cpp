// D_c(j) = min_i D_{c-1}(i) + cost(i, j): the squared error of the best c clusters of the first j values.
//
// The cost of one cluster, its weighted squared error, comes in O(1) from prefix sums. It satisfies the
// Monge condition, so the best i moves right as j does, and a layer is filled by divide and conquer in
// O(n log n) instead of O(n^2) (Wu 1991; Grønlund et al., arXiv 1701.07204).
#include "solver.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "prefix_sums.hpp"
#include "simd.hpp"

namespace isotone {
namespace {

struct Layer {
  const double* weight;  // prefix sums of w, w*x, w*x*x, [n+1]
  const double* first;
  const double* second;
  const double* previous;  // D_{c-1}, [n+1]
  double* current;         // D_c, [n+1]
  std::uint32_t* split;    // best i for each j, [n+1]
  double* scratch;         // [n+1]
};

inline double split_cost(const Layer& layer, std::size_t i, std::size_t j) {
  const double sum = layer.first[j] - layer.first[i];
  const double error =
      (layer.second[j] - layer.second[i]) - sum * sum / (layer.weight[j] - layer.weight[i]);
  return layer.previous[i] + (error > 0.0 ? error : 0.0);
}

// The best of the splits lo <= i < hi. The first of equal ones wins, so that ties are broken the same way
// on every machine. These are three plain loops rather than one clever one, because each vectorises.
ISOTONE_CLONES
std::size_t best_of_many(const Layer& layer, std::size_t j, std::size_t lo, std::size_t hi) {
  const double weight = layer.weight[j], first = layer.first[j], second = layer.second[j];
  const double* __restrict__ pw = layer.weight;
  const double* __restrict__ pf = layer.first;
  const double* __restrict__ ps = layer.second;
  const double* __restrict__ previous = layer.previous;
  double* __restrict__ scratch = layer.scratch;
#pragma omp simd
  for (std::size_t i = lo; i < hi; ++i) {
    const double sum = first - pf[i];
    const double error = (second - ps[i]) - sum * sum / (weight - pw[i]);
    scratch[i] = previous[i] + (error > 0.0 ? error : 0.0);
  }
  double best = std::numeric_limits<double>::infinity();
#pragma omp simd reduction(min : best)
  for (std::size_t i = lo; i < hi; ++i) best = scratch[i] < best ? scratch[i] : best;
  std::size_t at = lo;
  while (at + 1 < hi && scratch[at] != best) ++at;
  return at;
}

// The same for few splits: most calls come from the bottom of the recursion, where few are left.
inline std::size_t best_of_few(const Layer& layer, std::size_t j, std::size_t lo, std::size_t hi) {
  std::size_t at = lo;
  double best = split_cost(layer, lo, j);
  for (std::size_t i = lo + 1; i < hi; ++i) {
    const double cost = split_cost(layer, i, j);
    if (cost < best) best = cost, at = i;
  }
  return at;
}

inline std::size_t best_split(const Layer& layer, std::size_t j, std::size_t lo, std::size_t hi) {
  constexpr std::size_t few = 24;
  const std::size_t at = hi - lo <= few ? best_of_few(layer, j, lo, hi) : best_of_many(layer, j, lo, hi);
  layer.current[j] = split_cost(layer, at, j);
  layer.split[j] = static_cast<std::uint32_t>(at);
  return at;
}

void fill(const Layer& layer, std::size_t j_lo, std::size_t j_hi, std::size_t i_lo, std::size_t i_hi) {
  while (j_lo < j_hi) {
    const std::size_t j = j_lo + (j_hi - j_lo) / 2;
    const std::size_t i = best_split(layer, j, i_lo, std::min(i_hi, j));
    fill(layer, j_lo, j, i_lo, i + 1);
    j_lo = j + 1;
    i_lo = i;
  }
}

}  // namespace

void solve(const double* values, const double* weights, std::size_t n, std::size_t k,
           std::int64_t* borders) {
  const PrefixSums sums(values, weights, n);
  const std::vector<double>&weight = sums.weight, &first = sums.first, &second = sums.second;
  std::vector<double> previous(n + 1), current(n + 1), scratch(n + 1);
  std::vector<std::uint32_t> splits((k - 1) * (n + 1));
  for (std::size_t j = 1; j <= n; ++j) {
    const double sum = first[j] - first[0];
    previous[j] = std::max(0.0, (second[j] - second[0]) - sum * sum / (weight[j] - weight[0]));
  }
  for (std::size_t c = 2; c <= k; ++c) {
    std::uint32_t* split = &splits[(c - 2) * (n + 1)];
    const Layer layer{weight.data(),   first.data(),   second.data(), previous.data(),
                      current.data(), split, scratch.data()};
    // The last layer is read only at n.
    fill(layer, c == k ? n : c, n + 1, c - 1, n);
    std::swap(previous, current);
  }
  borders[k] = static_cast<std::int64_t>(n);
  for (std::size_t c = k; c >= 2; --c)
    borders[c - 1] = splits[(c - 2) * (n + 1) + static_cast<std::size_t>(borders[c])];
  borders[0] = 0;
}

}  // namespace isotone
