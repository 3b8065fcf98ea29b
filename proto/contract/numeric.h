// Numeric kernels without torch that give the same bits as torch: casts between
// floating-point types.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "proto/contract/dtype.h"

namespace modelstore {

// True for pairs of float16, bfloat16, float32, float64.
bool CanCast(DType from, DType to);

// Converts `count` elements, rounding to nearest, ties to even. Gives the bits of torch's
// Tensor::to for a contiguous tensor on x86-64, including NaN: from float32 and float64
// to bfloat16 each NaN becomes 0xffff, from float16 0x7fc0; to float16 a NaN keeps only
// its sign. Torch itself is not consistent: the last count % 16 elements of float64, and
// tensors that its vector code does not handle (strided, other processors), give 0x7fc0.
//
// `to_bytes` has space for count elements and must not overlap `from_bytes`. Neither
// needs to be aligned. INVALID_ARGUMENT unless CanCast(from, to).
absl::Status Cast(DType from, const char* from_bytes, DType to, char* to_bytes,
                  int64_t count);

// Whether every byte is 0 or 1. Reading any other byte as a bool is undefined behaviour
// in C++. Stops early at another byte.
bool HoldsOnlyBools(absl::string_view bytes);

}  // namespace modelstore
