// Addresses that a server listens on: `--address` and `--port` as one gRPC target.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace modelstore::server {

// `unix:/path/of/a/socket`, which has no port.
bool IsUnixAddress(absl::string_view address);

// True if only this machine can reach what is bound there: a numeric loopback
// address, with or without brackets, `localhost`, or a unix socket. No other host
// name is, whatever it resolves to.
bool IsLocalAddress(absl::string_view address);

// The target that a client on this machine connects to: `127.0.0.1:7070`,
// `[::1]:7070`, `unix:/run/modelstore.sock`.
std::string TargetOf(absl::string_view address, int port);

// Whether somebody accepts connections at this unix socket. False for any other address.
bool AcceptsConnections(absl::string_view address);

// Says why `address` cannot be bound, by trying it with plain sockets. Called after
// gRPC, which tells no reason, has failed.
std::string ExplainListenFailure(absl::string_view address, int port);

}  // namespace modelstore::server
