// Checks UTF-8 before serialization. Protobuf itself only prints to stderr, and names
// neither the map entry nor the call.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "google/protobuf/message.h"

namespace modelstore::internal {

// INVALID_ARGUMENT naming the first `string` field of the message or its submessages that
// is not UTF-8: `labels["run"]: is not UTF-8 at byte 3`. `path` prefixes the name.
absl::Status CheckStrings(const google::protobuf::Message& message,
                          const std::string& path = "");

// As above, for one string.
absl::Status CheckString(const std::string& field, const std::string& text);

}  // namespace modelstore::internal
