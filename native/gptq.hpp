#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace isotone {

// Gives ranks to whole rows of scaled weights [n_rows, n_columns], column after column, and feeds the error
// of each weight back into the columns still to come: value[t] -= error[j] * factor[j, t] for t > j.
//
// factor: [n_columns, n_columns], the inverse-Hessian factor, used above the diagonal. labels: of the 65,536
// half-precision keys, each a rank and the protected bit. Returns the positions of the protected weights,
// which have no error.
std::vector<std::int64_t> round_with_feedback(const float* weights, std::size_t n_rows,
                                              std::size_t n_columns, const float* factor,
                                              const std::uint16_t* labels, const float* codebook,
                                              std::uint8_t* ranks);

}  // namespace isotone
