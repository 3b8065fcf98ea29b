// The RPCs of both services, independent of gRPC: a unary RPC is a function from bytes to
// bytes, a stream is a session. The server puts it behind gRPC; client/testing calls it
// within the process.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/core/session.h"

namespace modelstore::server {

// kInbound: client streaming; kOutbound: server streaming.
enum class MethodKind : uint8_t { kUnary, kInbound, kOutbound };

// Thread-safe.
class Service {
 public:
  virtual ~Service() = default;

  // Returns the kind of a method by its full name, such as
  // `/modelstore.v1.ModelStore/GetModel`. Absent if it is unknown.
  virtual std::optional<MethodKind> Find(absl::string_view method) const = 0;
  // Runs a unary RPC: serialized request to serialized response. Blocks on storage.
  // UNIMPLEMENTED, naming the method, for an RPC that is declared but not built.
  virtual absl::StatusOr<std::string> Call(absl::string_view method,
                                           absl::string_view request) = 0;
  // Open a stream. The session must not outlive the service. An error is the status of
  // the RPC. OpenOutbound() blocks on storage.
  virtual absl::StatusOr<std::unique_ptr<InboundSession>> OpenInbound(
      absl::string_view method) = 0;
  virtual absl::StatusOr<std::unique_ptr<OutboundSession>> OpenOutbound(
      absl::string_view method, absl::string_view request) = 0;
};

}  // namespace modelstore::server
