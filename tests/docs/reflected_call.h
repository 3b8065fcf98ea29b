// What grpcurl does: calls a method knowing only the server's address, its
// descriptors by reflection, messages as JSON. So that the documented grpcurl
// commands are run by a test without grpcurl, which Debian does not package.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace modelstore::docs {

struct GrpcurlCommand {
  std::string json = "{}";
  std::string address;
  std::string method;  // `modelstore.v1.ModelStore/GetModel`
};

// Reads `grpcurl -plaintext [-d 'JSON'] ADDRESS METHOD`. INVALID_ARGUMENT for
// anything else.
absl::StatusOr<GrpcurlCommand> ParseGrpcurl(const std::string& line);

// Calls the method on `address` (instead of the command's own) and returns every
// response as JSON, one after the other.
absl::StatusOr<std::string> CallByReflection(const GrpcurlCommand& command,
                                             const std::string& address);

// The services that the server's reflection lists, one per line: what
// `grpcurl ADDRESS list` prints.
absl::StatusOr<std::string> ListServices(const std::string& address);

}  // namespace modelstore::docs
