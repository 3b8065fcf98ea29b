// Parses requests and serializes responses of unary RPCs.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"

namespace modelstore::server {

// INVALID_ARGUMENT if `bytes` is not a well-formed message of the type of `request`.
absl::Status ParseRequest(absl::string_view bytes, google::protobuf::Message* request);

// Serializes the response of a unary RPC. OUT_OF_RANGE if it exceeds kMaxAnswerBytes, the
// default limit of gRPC clients; `what` names the response in the message.
absl::StatusOr<std::string> SerializeAnswer(const google::protobuf::Message& answer,
                                            absl::string_view what);

}  // namespace modelstore::server
