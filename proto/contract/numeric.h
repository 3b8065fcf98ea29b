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

// Converts `count` elements; rounds to nearest, ties to even, to the bits that
// torch's Tensor::to gives for a contiguous tensor on x86-64, NaN included: from
// float32 and float64 to bfloat16 each NaN becomes 0xffff, from float16 0x7fc0; to
// float16 it keeps its sign alone. Torch itself is not uniform: for float64 the last
// count % 16 elements, and any tensor that its vectors do not reach (strided, or
// another processor), get 0x7fc0. `to_bytes` holds count elements of `to` and does
// not overlap `from_bytes`. Neither needs to be aligned.
// InvalidArgument unless CanCast(from, to).
absl::Status Cast(DType from, const char* from_bytes, DType to, char* to_bytes,
                  int64_t count);

// Whether every byte is 0 or 1: read as a bool, any other is undefined behaviour in
// C++. Stops at the first that is not.
bool HoldsOnlyBools(absl::string_view bytes);

}  // namespace modelstore
