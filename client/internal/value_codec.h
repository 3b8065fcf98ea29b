// Values between their public form and the wire.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "modelstore/v1/resources.pb.h"
#include "modelstore/value.h"

namespace modelstore::internal {

// INVALID_ARGUMENT naming `field` for a tree deeper than 64 levels, a key that
// is no scalar, or a BigInt that is no decimal integer.
absl::Status EncodeValue(absl::string_view field, const Value& value, v1::Value* out);

// A kind that this build does not know becomes INTERNAL: a newer server.
absl::StatusOr<Value> DecodeValue(const v1::Value& value);

}  // namespace modelstore::internal
