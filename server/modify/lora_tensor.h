// A weight with a low-rank adapter merged into it.
#pragma once

#include <cstdint>

#include "proto/contract/dtype.h"
#include "server/modify/tensor_source.h"

namespace modelstore::server::modify {

// Elements of A, which is held in float64 while its weight is being computed: 32 MiB.
inline constexpr int64_t kMaxLoraElements = int64_t{4} << 20;
// Each element of the weight takes so many multiplications: a chunk is computed within
// a second.
inline constexpr int64_t kMaxLoraRank = 4096;

// A or B, flattened to two dimensions.
struct LoraFactor {
  SourcePtr source;
  DType dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t columns = 0;
};

// W + scale * (B * A), each element summed over A's rows in order in float64 and
// rounded once. B has as many columns as A has rows; both, and the weight, are of types
// that CanSum().
SourcePtr LoraSource(SourcePtr weight, DType dtype, LoraFactor a, LoraFactor b,
                     double scale);

}  // namespace modelstore::server::modify
