// absl::Status to grpc::Status and back, details included. The only file of the
// contract that knows grpc++.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace modelstore {

// Payloads whose type URL begins with `type.googleapis.com/` become details of a
// google.rpc.Status in the binary error details. The message is cut at 4 KiB. A status
// without a reason gets that of its code: no error leaves the server without one.
grpc::Status ToGrpcStatus(const absl::Status& status);

// The inverse. Unknown details are kept as payloads; unparsable ones dropped.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace modelstore
