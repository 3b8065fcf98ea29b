// Converts between absl::Status and grpc::Status, including details. The only file of the
// contract that includes grpc++.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace modelstore {

// Payloads whose type URL starts with `type.googleapis.com/` become details of a
// google.rpc.Status in the binary error details. The message is truncated to 4 KiB. A
// status without a reason gets that of its code, so every error of the server has one.
grpc::Status ToGrpcStatus(const absl::Status& status);

// The inverse. Unknown details are kept as payloads; malformed ones are dropped.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace modelstore
