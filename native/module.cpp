// The boundary to Python: arrays in, arrays out. Nothing is validated here (src/isotone does it), and the
// GIL is released for every loop.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <memory>
#include <vector>

#include "assign.hpp"
#include "bits.hpp"
#include "entropy.hpp"
#include "gptq.hpp"
#include "histogram.hpp"
#include "moments.hpp"
#include "rans.hpp"
#include "scale.hpp"
#include "solver.hpp"

namespace nb = nanobind;

namespace {

template <typename T>
using In = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Out = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Array = nb::ndarray<nb::numpy, T, nb::ndim<1>>;

template <typename T>
Array<T> to_array(std::vector<T>&& values) {
  auto owned = std::make_unique<std::vector<T>>(std::move(values));
  T* data = owned->data();
  const std::size_t size = owned->size();
  nb::capsule owner(owned.release(), [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return Array<T>(data, {size}, owner);
}

}  // namespace

NB_MODULE(_native, m) {
  using u8 = std::uint8_t;
  using u16 = std::uint16_t;
  using u32 = std::uint32_t;
  using u64 = std::uint64_t;
  using i64 = std::int64_t;

  // Constants of the format and of the loops; isotone.core takes them from here.
  m.attr("RANS_SLOTS") = isotone::rans_slots;
  m.attr("RANS_STATE_BYTES") = isotone::rans_state_bytes;
  m.attr("RANS_SYMBOL_BYTES") = isotone::rans_symbol_bytes;
  m.attr("BIN_KEY_BITS") = isotone::bin_key_bits;
  m.attr("PROTECTED_LABEL") = isotone::protected_bit;

  m.def("solve", [](In<double> values, In<double> weights, std::size_t k) {
    std::vector<i64> borders(k + 1);
    {
      nb::gil_scoped_release release;
      isotone::solve(values.data(), weights.data(), values.size(), k, borders.data());
    }
    return to_array(std::move(borders));
  });

  const auto release = nb::call_guard<nb::gil_scoped_release>();
  m.def("count_patterns", [](In<u16> bits, Out<u64> counts) {
    isotone::count_patterns(bits.data(), bits.size(), counts.data());
  }, release);
  m.def("count_bins", [](In<u32> bits, Out<u64> counts, Out<double> sums, Out<double> squares) {
    isotone::count_bins(bits.data(), bits.size(), counts.data(), sums.data(), squares.data());
  }, release);
  m.def("count_within_bins", [](In<u32> bits, In<std::int32_t> slot, Out<u64> counts) {
    isotone::count_within_bins(bits.data(), bits.size(), slot.data(), counts.data());
  }, release);
  m.def("count_not_finite", [](In<u32> bits) {
    return isotone::count_not_finite(bits.data(), bits.size());
  }, release);

  nb::class_<isotone::DistinctCounter>(m, "DistinctCounter")
      .def(nb::init<std::size_t>())
      .def("add", [](isotone::DistinctCounter& self, In<u32> bits) {
        return self.add(bits.data(), bits.size());
      }, release)
      .def("sorted", [](const isotone::DistinctCounter& self) {
        std::vector<u32> keys;
        std::vector<i64> counts;
        {
          nb::gil_scoped_release unlocked;
          for (const auto& [key, count] : self.sorted()) {
            keys.push_back(key);
            counts.push_back(static_cast<i64>(count));
          }
        }
        return nb::make_tuple(to_array(std::move(keys)), to_array(std::move(counts)));
      });

  m.def("assign16", [](In<u16> bits, In<u16> labels, Out<u8> ranks) {
    std::vector<i64> positions;
    {
      nb::gil_scoped_release unlocked;
      positions = isotone::assign16(bits.data(), bits.size(), labels.data(), ranks.data());
    }
    return to_array(std::move(positions));
  });
  m.def("assign32", [](In<u32> bits, In<u32> cell, In<u32> starts, In<u16> labels, Out<u8> ranks) {
    std::vector<i64> positions;
    {
      nb::gil_scoped_release unlocked;
      positions = isotone::assign32(bits.data(), bits.size(), cell.data(), starts.data(), starts.size(),
                                    labels.data(), ranks.data());
    }
    return to_array(std::move(positions));
  });
  m.def("gather16", [](In<u8> ranks, In<u16> table, Out<u16> out) {
    isotone::gather16(ranks.data(), ranks.size(), table.data(), table.size(), out.data());
  }, release);
  m.def("gather32", [](In<u8> ranks, In<u32> table, Out<u32> out) {
    isotone::gather32(ranks.data(), ranks.size(), table.data(), out.data());
  }, release);

  m.def("partition", [](In<double> values, In<double> weights, double bit, double centroid,
                        double protected_weight, Out<std::int32_t> labels) {
    isotone::partition(values.data(), weights.data(), values.size(), {bit, centroid, protected_weight},
                       labels.data());
  }, release);
  m.def("lloyd_iterations", [](In<double> values, In<double> weights, double bit, double centroid,
                               double protected_weight, Out<std::int32_t> labels) {
    return isotone::lloyd_iterations(values.data(), weights.data(), values.size(),
                                     {bit, centroid, protected_weight}, labels.data());
  }, release);

  m.def("balance", [](In<u8> bits, int format, In<float> inverse, Out<float> row, Out<double> column) {
    std::vector<float> scratch(2 * column.size());
    isotone::balance(bits.data(), isotone::Format(format), row.size(), column.size(), inverse.data(),
                     row.data(), column.data(), scratch.data());
  }, release);
  m.def("moments", [](In<u8> bits, int format, std::size_t n) {
    double sums[2];
    {
      nb::gil_scoped_release unlocked;
      isotone::moments(bits.data(), isotone::Format(format), n, sums);
    }
    return nb::make_tuple(sums[0], sums[1]);
  });
  m.def("divide", [](In<u8> bits, int format, std::size_t position, In<float> inverse_row,
                     In<float> inverse_column, Out<u16> keys) {
    isotone::divide(bits.data(), isotone::Format(format), keys.size(), position, inverse_column.size(),
                    inverse_row.data(), inverse_column.data(), keys.data());
  }, release);
  m.def("multiply", [](In<u8> ranks, std::size_t position, In<float> codebook, In<float> row,
                       In<float> column, int format, Out<u8> out) {
    std::vector<float> scratch(256 + column.size());
    isotone::multiply(ranks.data(), ranks.size(), position, column.size(), codebook.data(), codebook.size(),
                      row.data(), column.data(), isotone::Format(format), out.data(), scratch.data());
  }, release);
  m.def("sum_by_rank", [](In<u8> ranks, std::size_t position, In<float> gradient, In<float> row,
                          In<float> column, Out<double> sums) {
    std::vector<float> scratch(4 * 256 + column.size());
    isotone::sum_by_rank(ranks.data(), ranks.size(), position, column.size(), gradient.data(), row.data(),
                         column.data(), sums.size(), sums.data(), scratch.data());
  }, release);
  m.def("round_with_feedback", [](In<float> weights, std::size_t n_columns, In<float> factor,
                                  In<u16> labels, In<float> codebook, Out<u8> ranks) {
    std::vector<i64> positions;
    {
      nb::gil_scoped_release unlocked;
      positions = isotone::round_with_feedback(weights.data(), weights.size() / n_columns, n_columns,
                                               factor.data(), labels.data(), codebook.data(), ranks.data());
    }
    return to_array(std::move(positions));
  });
  m.def("squared_error", [](In<u8> a, In<u8> b, int format, std::size_t n) {
    return isotone::squared_error(a.data(), b.data(), isotone::Format(format), n);
  }, release);

  m.def("pack", [](In<u8> ranks, unsigned width, Out<u8> out) {
    isotone::pack(ranks.data(), ranks.size(), width, out.data());
  }, release);
  m.def("unpack", [](In<u8> in, unsigned width, Out<u8> ranks) {
    isotone::unpack(in.data(), ranks.size(), width, ranks.data());
  }, release);
  m.def("rans_encode", [](In<u8> ranks, std::size_t k, Out<u8> out) {
    return isotone::rans_encode(ranks.data(), ranks.size(), k, out.data(), out.size());
  }, release);
  m.def("rans_decode", [](In<u8> in, std::size_t k, Out<u8> ranks) {
    return isotone::rans_decode(in.data(), in.size(), k, ranks.data(), ranks.size());
  }, release);
}
