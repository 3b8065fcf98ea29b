// The Connection that speaks gRPC.
#pragma once

#include <memory>
#include <string_view>

#include "modelstore/connection.h"

namespace modelstore::internal {

// Opens nothing yet: the first call does.
std::shared_ptr<Connection> MakeGrpcConnection(std::string_view target,
                                               const ConnectOptions& options);

}  // namespace modelstore::internal
