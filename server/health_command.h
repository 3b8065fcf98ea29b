// `modelstored health`: checks a running server by the standard gRPC health service. For
// Docker's HEALTHCHECK and for scripts.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace modelstore::server {

// OK if the server at `target` (`host:port` or `unix:/path`) answers SERVING within
// `timeout`, else UNAVAILABLE with the reason. Blocks.
absl::Status CheckHealth(const std::string& target, absl::Duration timeout);

}  // namespace modelstore::server
