// D_c(j) = min_i D_{c-1}(i) + cost(i, j): the best c clusters of the first j points.
//
// The cost of one cluster, its weighted squared error, comes in O(1) from prefix sums. It satisfies
// the Monge condition, so the best i moves right as j does, and a layer is filled by divide and
// conquer in O(n log n) instead of O(n^2) (Wu 1991; Grønlund et al., arXiv 1701.07204).
//
// Prefix sums start at the weighted median and run outwards, about the median. The far tails come
// last, so an outlier of any size leaves the sums of the bulk untouched.
#include "solver.hpp"

#include <algorithm>
#include <limits>
#include <vector>

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

// The best of the splits lo <= i < hi; the first of equal ones wins, so ties are settled the same
// way everywhere. Three plain loops rather than one clever one: each of them vectorises.
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

// Most calls come from the bottom of the recursion, where few splits are left.
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
  double total = 0.0;
  for (std::size_t i = 0; i < n; ++i) total += weights[i];
  std::size_t middle = 0;
  for (double seen = weights[0]; seen < total / 2 && middle + 1 < n;) seen += weights[++middle];

  std::vector<double> weight(n + 1), first(n + 1), second(n + 1);
  auto add = [&](std::size_t to, std::size_t from, std::size_t point, double sign) {
    const double x = values[point] - values[middle];
    const double w = sign * weights[point];
    weight[to] = weight[from] + w;
    first[to] = first[from] + w * x;
    second[to] = second[from] + w * x * x;
  };
  for (std::size_t i = middle; i < n; ++i) add(i + 1, i, i, 1.0);
  for (std::size_t i = middle; i > 0; --i) add(i - 1, i, i - 1, -1.0);

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
    // The last layer is read at n alone.
    fill(layer, c == k ? n : c, n + 1, c - 1, n);
    std::swap(previous, current);
  }
  borders[k] = static_cast<std::int64_t>(n);
  for (std::size_t c = k; c >= 2; --c)
    borders[c - 1] = splits[(c - 2) * (n + 1) + static_cast<std::size_t>(borders[c])];
  borders[0] = 0;
}

}  // namespace isotone
