// One element over and over: tensors of zeros or ones, of any size, in no memory.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "proto/contract/dtype.h"
#include "server/modify/tensor_source.h"

namespace modelstore::server::modify {

// `count` elements of `value`, rounded to `dtype` as torch.full() does. Integers and
// bools can be 0 or 1, anything else only 0: INVALID_ARGUMENT.
absl::StatusOr<SourcePtr> RepeatSource(DType dtype, double value, int64_t count);

// `bytes`, which are not empty, `count` times: a row over and over.
SourcePtr RepeatBytesSource(std::string bytes, int64_t count);

}  // namespace modelstore::server::modify
