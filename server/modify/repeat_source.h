// Sources that repeat one element or one row, for tensors of any size in constant memory.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "proto/contract/dtype.h"
#include "server/modify/tensor_source.h"

namespace modelstore::server::modify {

// `count` elements of `value`, rounded to `dtype` as torch.full() does. If Cast() does
// not support `dtype`, `value` must be 0, or 0 or 1 for integers and bool:
// INVALID_ARGUMENT otherwise.
absl::StatusOr<SourcePtr> RepeatSource(DType dtype, double value, int64_t count);

// `bytes`, which must not be empty, repeated `count` times.
SourcePtr RepeatBytesSource(std::string bytes, int64_t count);

}  // namespace modelstore::server::modify
