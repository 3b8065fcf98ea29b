// `modelstored health`: asks a running server how it is. For Docker's
// HEALTHCHECK and for scripts.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace modelstore::server {

// OK if the server at `target` (host:port) answers SERVING within `timeout`.
absl::Status CheckHealth(const std::string& target, absl::Duration timeout);

}  // namespace modelstore::server
