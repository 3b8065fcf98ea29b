// Refuses text that protobuf would not take, before it is serialized: protobuf itself
// prints to stderr, and names neither the entry of a map nor the call.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "google/protobuf/message.h"

namespace modelstore::internal {

// INVALID_ARGUMENT naming the first `string` of the message, or of those within it, that
// is not UTF-8: `labels["run"]: is not UTF-8 at byte 3`. `path` is put before the name.
absl::Status CheckStrings(const google::protobuf::Message& message,
                          const std::string& path = "");

// The same for one string.
absl::Status CheckString(const std::string& field, const std::string& text);

}  // namespace modelstore::internal
