// Figures over the elements of tensors, torch-free and in bounded memory: how many
// are not finite, and how far two tensors are apart.
#pragma once

#include <array>
#include <cstdint>

#include "proto/contract/dtype.h"

namespace modelstore {

struct NonFinite {
  int64_t nan = 0;
  int64_t infinite = 0;
};
// Of `count` elements at any address. A complex element counts once, as NaN if
// either part is. Integers and bool have none.
NonFinite CountNonFinite(DType dtype, const char* bytes, int64_t count);

// How two sequences of elements differ, in float64, fed run by run. A complex
// element is one element: its distance is the absolute value of the difference.
// Differences of 64-bit integers are taken exactly and then rounded.
//
//   DifferenceSums sums;
//   sums.Add(DType::kFloat32, a, DType::kBfloat16, b, 1024);
//   sums.difference_norm();
class DifferenceSums {
 public:
  // `count` elements each, at any address; the same ones twice where nothing
  // differs: then norm() alone grows.
  void Add(DType a_dtype, const char* a, DType b_dtype, const char* b, int64_t count);

  // As if what was added to `other` had been added here.
  void Merge(const DifferenceSums& other);

  // Over elements that are not NaN on either side. Infinities of one sign are at
  // distance 0, of other numbers at an infinite one.
  double max_abs_difference() const { return max_abs_; }
  double difference_norm() const;
  // Of the first sequence, without its NaN.
  double norm() const;
  // Not equal as numbers: 0 and -0 are. Without those that are NaN on a side.
  int64_t differing_elements() const { return differing_; }
  // NaN on one side alone.
  int64_t nan_differences() const { return nan_; }

 private:
  // Sums are kept in lanes, so that the processor adds several at once, and a
  // large sum is not added to element by element.
  static constexpr int kLanes = 8;
  using Lanes = std::array<double, kLanes>;
  friend struct DifferenceKernels;

  double max_abs_ = 0;
  Lanes difference_squares_ = {};
  Lanes squares_ = {};
  int64_t differing_ = 0;
  int64_t nan_ = 0;
};

}  // namespace modelstore
