// Serialized requests in, serialized responses out: protobuf with the limits of
// the contract instead of the library's defaults.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"

namespace modelstore::server {

// INVALID_ARGUMENT if `bytes` is not a well-formed message of that type. Unlike
// ParseFromString() it takes trees of values as deep as the contract allows.
absl::Status ParseMessage(absl::string_view bytes, google::protobuf::Message* message);

// The same bytes for equal messages: maps are sorted.
std::string SerializeDeterministic(const google::protobuf::Message& message);

// Serializes an answer of a unary RPC. `what` names it in the OUT_OF_RANGE that
// an answer over 4 MiB gets.
absl::StatusOr<std::string> SerializeAnswer(const google::protobuf::Message& message,
                                            absl::string_view what);

}  // namespace modelstore::server
