// Weighted sums of floating-point elements in float64, rounded once at the end. Used to
// average checkpoints and to merge adapters.
//
//   AddWeighted(DType::kFloat16, a, 0.5, Sums::kBegin, sums, n);
//   AddWeighted(DType::kFloat16, b, 0.5, Sums::kAccumulate, sums, n);
//   RoundSums(sums, DType::kFloat16, out, n);
//
// Every step is one IEEE 754 multiplication and one addition, in this order and never
// fused, so that a plain loop gives the same bits on every machine.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "proto/contract/dtype.h"

namespace modelstore {

// True for float16, bfloat16, float32 and float64.
bool CanSum(DType dtype);

enum class Sums : uint8_t {
  kBegin,       // sums[i] = coefficient * element[i]
  kAccumulate,  // sums[i] = sums[i] + coefficient * element[i]
};

// `bytes` need not be aligned. InvalidArgument unless CanSum(dtype).
absl::Status AddWeighted(DType dtype, const char* bytes, double coefficient, Sums what,
                         double* sums, int64_t count);

// Rounds each sum to the nearest element of type `to`, ties to even. Rounds only once,
// also to 16 bits, where Cast() would round to float32 first. NaN stays a quiet NaN.
// INVALID_ARGUMENT unless CanSum(to).
absl::Status RoundSums(const double* sums, DType to, char* to_bytes, int64_t count);

}  // namespace modelstore
