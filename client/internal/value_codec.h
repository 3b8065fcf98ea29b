// Values between their public form and the wire.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "modelstore/v1/resources.pb.h"
#include "modelstore/value.h"
#include "proto/contract/value_check.h"

namespace modelstore::internal {

// INVALID_ARGUMENT naming `field` and the place in the tree for what CheckValue()
// refuses. Appends the tensors that the tree names to `tensors`.
absl::Status EncodeValue(absl::string_view field, const Value& value, v1::Value* out,
                         std::vector<NamedTensor>* tensors);

// A kind that this build does not know becomes INTERNAL: a newer server.
absl::StatusOr<Value> DecodeValue(const v1::Value& value);

}  // namespace modelstore::internal
