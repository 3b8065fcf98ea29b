// Converts values between the public struct and protobuf.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "modelstore/v1/resources.pb.h"
#include "modelstore/value.h"
#include "proto/contract/value_check.h"

namespace modelstore::internal {

// INVALID_ARGUMENT, naming `field` and the path in the tree, for values that CheckValue()
// refuses. Appends the tensors that the tree references to `tensors`.
absl::Status EncodeValue(absl::string_view field, const Value& value, v1::Value* out,
                         std::vector<NamedTensor>* tensors);

// INTERNAL for an unknown kind, which a newer server may send.
absl::StatusOr<Value> DecodeValue(const v1::Value& value);

}  // namespace modelstore::internal
