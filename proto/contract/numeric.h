// Numeric kernels without torch, bit-equal to torch's: casts between
// floating-point types.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "proto/contract/dtype.h"

namespace modelstore {

// True for pairs of float16, bfloat16, float32, float64.
bool CanCast(DType from, DType to);

// Converts `count` elements; rounds to nearest, ties to even, as torch's
// Tensor::to does on the CPU, with one stated freedom: NaN stays NaN, quiet, but
// torch itself gives it other bits in its vectorised than in its plain code, and
// here they are always the plain ones. `to_bytes` holds count elements of `to`
// and does not overlap `from_bytes`. Neither needs to be aligned.
// InvalidArgument unless CanCast(from, to).
absl::Status Cast(DType from, const char* from_bytes, DType to, char* to_bytes,
                  int64_t count);

}  // namespace modelstore
