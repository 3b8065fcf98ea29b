// The RPCs of both services without gRPC: unary calls are functions of bytes, streams
// are sessions.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/core/session.h"

namespace modelstore::server {

enum class MethodKind : uint8_t { kUnary, kInbound, kOutbound };

// Thread-safe.
class Service {
 public:
  virtual ~Service() = default;

  // `method` is the full name, `/modelstore.v1.ModelStore/GetModel`. Absent for
  // an unknown method.
  virtual std::optional<MethodKind> Find(absl::string_view method) const = 0;
  // Serialized request to serialized response. RPCs of the contract that are not
  // built answer UNIMPLEMENTED naming themselves.
  virtual absl::StatusOr<std::string> Call(absl::string_view method,
                                           absl::string_view request) = 0;
  virtual absl::StatusOr<std::unique_ptr<InboundSession>> OpenInbound(
      absl::string_view method) = 0;
  virtual absl::StatusOr<std::unique_ptr<OutboundSession>> OpenOutbound(
      absl::string_view method, absl::string_view request) = 0;
};

}  // namespace modelstore::server
