#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace isotone {

// Give ranks to whole rows of scaled weights [n_rows, n_columns], column after column, and spread the
// error of each over the columns still to come: value[t] -= error[j] * spread[j, t] for t > j.
// spread: [n_columns, n_columns], used above the diagonal. labels: of the 65,536 half-precision keys,
// rank and protected bit. Returns the positions of protected weights, which come back as they were.
std::vector<std::int64_t> feedback(const float* weights, std::size_t n_rows, std::size_t n_columns,
                                   const float* spread, const std::uint16_t* labels,
                                   const float* codebook, std::uint8_t* ranks);

}  // namespace isotone
