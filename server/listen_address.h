// Addresses that a server listens on: combines --address and --port into a gRPC target,
// and explains why one cannot be bound.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace modelstore::server {

// True for the path of a unix socket, such as `unix:/run/modelstore.sock`. It has no
// port.
bool IsUnixAddress(absl::string_view address);

// True if only this machine can reach the address: a numeric loopback address, with or
// without brackets, `localhost`, or a unix socket. False for any other host name, because
// what it resolves to may change.
bool IsLocalAddress(absl::string_view address);

// Returns the gRPC target to listen on or connect to: `127.0.0.1:7070`, `[::1]:7070`,
// `unix:/run/modelstore.sock`.
std::string TargetOf(absl::string_view address, int port);

// True if a process accepts connections at this unix socket. False for other addresses.
bool AcceptsConnections(absl::string_view address);

// Returns the reason why `address` cannot be bound, by binding it with plain sockets.
// Called after gRPC has failed, because gRPC reports no reason.
std::string ExplainListenFailure(absl::string_view address, int port);

}  // namespace modelstore::server
