// The Connection over gRPC.
#pragma once

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "modelstore/connection.h"

namespace modelstore::internal {

// Does not connect; the first call does. FAILED_PRECONDITION in the child of a process
// that has already made a connection.
absl::StatusOr<std::shared_ptr<Connection>> MakeGrpcConnection(
    std::string_view target, const ConnectOptions& options);

}  // namespace modelstore::internal
