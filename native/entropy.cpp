// Entropy-constrained clustering in one dimension (Chou, Lookabaugh and Gray 1989; that the best clusters
// are runs of the sorted values: György and Linder 2002).
//
// A cluster of weight w costs its squared error, and w * log2(W / w) bits for the ranks of its weights,
// where W is the weight of all clusters. The coder's frequencies are multiples of 1/4096, though, so a
// rarer cluster is coded in 12 bits and takes the rest of its slot from all others. The cost of a cluster
// depends on nothing outside of it, so the best partition, its number of clusters included, follows from
// one dynamic programme, in which F(j) is the least cost of the first j values:
//
//   F(j) = min(F(j - 1) + protection of value j - 1,
//              min_i F(i) + error(i, j) + bits(i, j) + centroid)
#include "entropy.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "prefix_sums.hpp"
#include "rans.hpp"
#include "simd.hpp"

namespace isotone {
namespace {

// log2 of a positive, normal x by basic arithmetic alone, so that every machine breaks ties alike:
// ln m = 2 artanh((m - 1) / (m + 1)) for m from 0.7 to 1.4. The next term is below 1e-16.
inline double log2_of(double x) {
  std::uint64_t bits;
  std::memcpy(&bits, &x, 8);
  const std::uint64_t shifted = bits - 0x3fe6a09e667f3bcdull;  // of sqrt(1/2)
  const auto exponent = static_cast<std::int64_t>(shifted) >> 52;
  bits -= static_cast<std::uint64_t>(exponent) << 52;
  double m;
  std::memcpy(&m, &bits, 8);
  const double s = (m - 1.0) / (m + 1.0), q = s * s;
  double sum = 1.0 / 19.0;
  sum = sum * q + 1.0 / 17.0;
  sum = sum * q + 1.0 / 15.0;
  sum = sum * q + 1.0 / 13.0;
  sum = sum * q + 1.0 / 11.0;
  sum = sum * q + 1.0 / 9.0;
  sum = sum * q + 1.0 / 7.0;
  sum = sum * q + 1.0 / 5.0;
  sum = sum * q + 1.0 / 3.0;
  sum = sum * q + 1.0;
  return static_cast<double>(exponent) + sum * s * 2.885390081777926815;  // 2 / ln 2
}

constexpr double slots = rans_slots;  // the sum of the coder's frequencies
constexpr double bits_a_nat = 1.442695040888963407;

// The bits that the ranks of a cluster of weight w take. They are concave in w; the slope is
// log2(W / max(w, W / 4096)) less a constant.
inline double rank_bits(double w, double total, double log_total) {
  const double used = w > total / slots ? w : total / slots;
  return w * (log_total - log2_of(used)) + bits_a_nat * (used - w);
}

// The i for which a cluster of the values i to j - 1 gives the cheapest partition of the first j values.
// scratch[i] receives the cost, without that of the centroid.
ISOTONE_CLONES
std::size_t best_start(const PrefixSums& sums, const double* cost, std::size_t j, double bit, double total,
                       double log_total, double* __restrict__ scratch) {
  const double* __restrict__ pw = sums.weight.data();
  const double* __restrict__ pf = sums.first.data();
  const double* __restrict__ ps = sums.second.data();
  const double weight = pw[j], first = pf[j], second = ps[j];
#pragma omp simd
  for (std::size_t i = 0; i < j; ++i) {
    const double w = weight - pw[i], sum = first - pf[i];
    const double error = (second - ps[i]) - sum * sum / w;
    scratch[i] = cost[i] + (error > 0.0 ? error : 0.0) + bit * rank_bits(w, total, log_total);
  }
  double best = std::numeric_limits<double>::infinity();
#pragma omp simd reduction(min : best)
  for (std::size_t i = 0; i < j; ++i) best = scratch[i] < best ? scratch[i] : best;
  std::size_t at = 0;
  while (at + 1 < j && scratch[at] != best) ++at;
  return at;
}

struct Cluster {
  double weight = 0.0, centroid = 0.0, bits = 0.0;  // bits: of the rank of one weight
};

// Computes the weight, the centroid and the code length of each cluster that has a value, numbers the
// clusters anew, and returns how many they are.
std::size_t update_clusters(const double* values, const double* weights, std::size_t n, double total,
                     double log_total, std::int32_t* labels, std::vector<Cluster>& clusters) {
  clusters.clear();
  std::int32_t last = -1;
  double sum = 0.0, anchor = 0.0;
  const auto close = [&] {
    if (clusters.empty()) return;
    Cluster& c = clusters.back();
    c.centroid = anchor + sum / c.weight;
    c.bits = log_total - log2_of(std::max(c.weight, total / slots));
  };
  for (std::size_t i = 0; i < n; ++i) {
    if (labels[i] < 0) continue;
    if (clusters.empty() || labels[i] != last) {
      close();
      last = labels[i];
      clusters.emplace_back();
      anchor = values[i];
      sum = 0.0;
    }
    clusters.back().weight += weights[i];
    sum += weights[i] * (values[i] - anchor);
    labels[i] = static_cast<std::int32_t>(clusters.size()) - 1;
  }
  close();
  return clusters.size();
}

}  // namespace

void partition(const double* values, const double* weights, std::size_t n, const BitCosts& costs,
               std::int32_t* labels) {
  const PrefixSums sums(values, weights, n);
  const double total = sums.total(), log_total = log2_of(total);
  std::vector<double> cost(n + 1), scratch(n);
  std::vector<std::int64_t> from(n + 1);  // where the last cluster begins; -1: value j - 1 is protected
  for (std::size_t j = 1; j <= n; ++j) {
    const std::size_t i = best_start(sums, cost.data(), j, costs.bit, total, log_total, scratch.data());
    cost[j] = scratch[i] + costs.centroid;
    from[j] = static_cast<std::int64_t>(i);
    const double exact = cost[j - 1] + costs.protected_weight * weights[j - 1];
    if (exact < cost[j]) cost[j] = exact, from[j] = -1;
  }
  std::int32_t cluster = static_cast<std::int32_t>(n);
  for (std::size_t j = n; j > 0;) {
    if (from[j] < 0) {
      labels[--j] = -1;
      continue;
    }
    --cluster;
    for (const auto i = static_cast<std::size_t>(from[j]); j > i;) labels[--j] = cluster;
  }
  for (std::size_t i = 0; i < n; ++i)
    if (labels[i] >= 0) labels[i] -= cluster;
}

double lloyd_iterations(const double* values, const double* weights, std::size_t n, const BitCosts& costs,
              std::int32_t* labels) {
  constexpr int rounds = 64;
  constexpr double converged = 1e-7;
  double total = 0.0;
  for (std::size_t i = 0; i < n; ++i) total += weights[i];
  const double log_total = log2_of(total);
  std::vector<Cluster> clusters;
  std::vector<std::int32_t> kept(labels, labels + n);
  double before = std::numeric_limits<double>::infinity();
  for (int round = 0;; ++round) {
    const std::size_t k = update_clusters(values, weights, n, total, log_total, labels, clusters);
    double now = static_cast<double>(k) * costs.centroid;
    for (const Cluster& c : clusters) now += costs.bit * rank_bits(c.weight, total, log_total);
    for (std::size_t i = 0; i < n; ++i) {
      if (labels[i] < 0) {
        now += costs.protected_weight * weights[i];
        continue;
      }
      const Cluster& c = clusters[static_cast<std::size_t>(labels[i])];
      const double d = values[i] - c.centroid;
      now += weights[i] * d * d;
    }
    // Protecting a weight makes the codes of all others longer, so a round may also raise the cost.
    if (now >= before) {
      std::copy(kept.begin(), kept.end(), labels);
      return before;
    }
    if (k == 0 || round == rounds || now > before * (1.0 - converged)) return now;
    before = now;
    std::copy(labels, labels + n, kept.begin());
    std::size_t at = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const auto cost = [&](std::size_t c) {
        const double d = values[i] - clusters[c].centroid;
        return d * d + costs.bit * clusters[c].bits;
      };
      // A rare neighbour may be passed over for the one behind it, so the next two clusters are tried.
      double best = cost(at);
      for (bool moved = true; moved;) {
        moved = false;
        for (std::size_t next = at + 1; next < k && next <= at + 2; ++next)
          if (const double p = cost(next); p < best) {
            best = p, at = next, moved = true;
            break;
          }
      }
      labels[i] = best > costs.protected_weight ? -1 : static_cast<std::int32_t>(at);
    }
  }
}

}  // namespace isotone
