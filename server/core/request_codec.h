// Serialized requests in, serialized answers out.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"

namespace modelstore::server {

// INVALID_ARGUMENT if `bytes` is not a well-formed message of that type.
absl::Status ParseRequest(absl::string_view bytes, google::protobuf::Message* request);

// Serializes the answer of a unary RPC. `what` names it in the OUT_OF_RANGE that an
// answer over 4 MiB gets.
absl::StatusOr<std::string> SerializeAnswer(const google::protobuf::Message& answer,
                                            absl::string_view what);

}  // namespace modelstore::server
