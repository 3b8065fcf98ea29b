// Statistics over the elements of tensors, torch-free and in constant memory: the number
// of non-finite elements, and the distance between two tensors.
#pragma once

#include <array>
#include <cstdint>

#include "proto/contract/dtype.h"

namespace modelstore {

struct NonFinite {
  int64_t nan = 0;
  int64_t infinite = 0;
};
// Counts over `count` elements; `bytes` need not be aligned. A complex element counts
// once, as NaN if either part is NaN. Integers and bool have none.
NonFinite CountNonFinite(DType dtype, const char* bytes, int64_t count);

// Accumulates the difference between two sequences of elements in float64. For complex
// elements the distance is the absolute value of the difference. Differences of 64-bit
// integers are computed exactly and then rounded.
//
//   DifferenceSums sums;
//   sums.Add(DType::kFloat32, a, DType::kBfloat16, b, 1024);
//   sums.difference_norm();
class DifferenceSums {
 public:
  // Adds `count` elements of each sequence; they need not be aligned. For equal ranges
  // pass the same bytes twice: then only norm() changes.
  void Add(DType a_dtype, const char* a, DType b_dtype, const char* b, int64_t count);

  // Adds everything that was added to `other`.
  void Merge(const DifferenceSums& other);

  // Over elements that are not NaN on either side. Two infinities of the same sign have
  // distance 0; an infinity and any other number have an infinite distance.
  double max_abs_difference() const { return max_abs_; }
  double difference_norm() const;
  // Norm of the first sequence without NaN elements.
  double norm() const;
  // Elements that are unequal as numbers (0 equals -0), without NaN on either side.
  int64_t differing_elements() const { return differing_; }
  // Elements that are NaN on exactly one side.
  int64_t nan_differences() const { return nan_; }

 private:
  // Several partial sums: they allow vectorized additions, and lose less precision than
  // one large sum.
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
